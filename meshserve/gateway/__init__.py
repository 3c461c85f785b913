"""The front door: Envoy, configured from a snapshot, and the node's small servers. Must not know how workers are started."""
