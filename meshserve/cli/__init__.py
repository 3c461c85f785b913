"""The command line: parse, call, print. It decides nothing, and speaks to a running mesh over HTTP like any other client."""
