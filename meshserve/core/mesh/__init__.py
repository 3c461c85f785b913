"""The mesh as one state machine, and the rules that join its parts.

Order of reading: `mesh`, `pins`, `hot_models`, `copy_requests`, `mesh_view`.
"""
