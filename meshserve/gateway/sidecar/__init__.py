"""The small servers beside Envoy, for what it can't answer and no worker should."""
