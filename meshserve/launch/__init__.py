"""The composition root: builds the real parts, starts and ends a mesh, and finds a running one."""
