"""Ask a mesh with the clients of other servers, and write docs/compatibility.md."""
