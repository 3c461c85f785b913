"""Workers and gateways: which run, which are wanted, and which worker is a model's home.

Order of reading: `reconcile`, `workers`, `gateways`, `hash_ring`.
"""
