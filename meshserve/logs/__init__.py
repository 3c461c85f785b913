"""The log files of a mesh's processes: whose lines stand there, in which form, and how many."""
