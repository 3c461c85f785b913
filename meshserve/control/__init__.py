"""The one writer: a queue of events, the mesh that decides, and hands. Speaks to clusters through `core.control_ports`."""
