"""Workers and gateways: which run, which are wanted, and where a model is at home.

Order of reading: `reconcile`, `workers`, `gateways`, `hash_ring`.
"""
