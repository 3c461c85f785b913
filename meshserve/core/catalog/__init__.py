"""Which models and aliases are served, and what an admin request may change of them.

Order of reading: `catalog_index`, `changeset`, `admin_requests`, `alias_requests`.
"""
