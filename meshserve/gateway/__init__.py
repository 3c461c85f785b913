"""One node's gateway: Envoy and its sidecar. Must not know how workers are started."""
