"""The command line: parse, call, print. It speaks to a running mesh as any other client does."""
