"""The one writer of the mesh's state, and the APIs that ask it for changes.

Order of reading: `control_plane` joins the parts, `controller` runs the loop, `effects` and
`registry_effects` perform commands, `monitor` watches processes, `admin_service` is what the
APIs in `api/` call. Clusters are reached through `core.interfaces.cluster_control` alone.
"""
