"""What is seen of the mesh from outside: logs."""
