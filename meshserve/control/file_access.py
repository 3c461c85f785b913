"""Which files of the mesh's machines a request may register as models."""

from __future__ import annotations

import dataclasses
import hmac
from collections.abc import Callable, Sequence

from meshserve import errors
from meshserve.core.values import model
from meshserve.storage import content, model_uri

OWNER_HINT = (
    "Allowed are the folders of gateway.file_roots, and any file to commands that can read the "
    "mesh's state directory (set MESHSERVE_HOME where it is not the default one)"
)


class FileAccess:
    """Bounds local files by `gateway.file_roots`, except for the mesh's owner.

    The owner is whoever knows `owner_key`, a secret in the state directory; an empty one has no
    owner. `file_roots` returns the folders as they are configured now.
    """

    def __init__(self, owner_key: str, file_roots: Callable[[], Sequence[str]]) -> None:
        self._owner_key = owner_key.encode()
        self._file_roots = file_roots

    def is_owner(self, key: str) -> bool:
        """Return whether the key is the owner's."""
        # The time of a usual comparison would tell how many characters are right.
        return bool(self._owner_key) and hmac.compare_digest(key.encode(), self._owner_key)

    def confine(self, spec: model.ModelSpec) -> model.ModelSpec:
        """Return the spec, bound to the file root that it lies below if it is of local files.

        Reads links of this machine's disk. Raises PermissionDenied for files outside of all roots,
        InvalidRequest for a URI that can't be one.
        """
        try:
            source = model_uri.parse(spec.uri)
        except errors.LoadFailed as error:
            raise errors.InvalidRequest(error.message) from None
        if source.kind != "local":
            return spec
        for root in self._file_roots():
            if content.is_inside(source.path, root):
                # Kept, because each fetch looks again: a link may lead elsewhere by then.
                return dataclasses.replace(spec, file_root=root)
        # Whether the file exists is not told.
        raise errors.PermissionDenied(
            f"{source.path} may not be registered by this request. {OWNER_HINT}"
        )

    def check_may_apply(self, *, is_owner: bool) -> None:
        """Raise PermissionDenied unless the request may apply a configuration.

        A configuration names files in many places, those of engines among them, so that it is the
        owner's, or anybody's where every file may be registered.
        """
        if not is_owner and "/" not in self._file_roots():
            raise errors.PermissionDenied(
                "only the mesh's owner may apply a configuration, which names files: run "
                "`meshserve up` where it can read the mesh's state directory"
            )
