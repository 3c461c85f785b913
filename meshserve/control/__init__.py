"""The controller, which alone changes the mesh's state, and the APIs that request changes.

Order of reading: `control_plane` joins the parts, `controller` runs the loop, `effects` performs
commands, `monitor` watches processes, and the APIs in `api/` call `admin_service`. The cluster is
reached only through `core.interfaces.cluster_control`.
"""
