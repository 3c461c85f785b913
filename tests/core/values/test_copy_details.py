from __future__ import annotations

import pickle

from meshserve.core.values import copy_details


def test_details_cross_processes() -> None:
    details = copy_details.CopyDetails(failed_requests={"ModelRaised": 2}, slow=("cold: x",))
    assert pickle.loads(pickle.dumps(details)) == details
