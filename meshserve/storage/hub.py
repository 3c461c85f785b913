"""Hugging Face's hub: which commit a name means, and the files of a commit.

`huggingface_hub` comes with vLLM. It reads HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE, as vLLM does.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

SCHEME = "hf"
PREFIX = f"{SCHEME}://"
DEFAULT_REVISION = "main"
ANSWER_S = 10.0

logger = logging.getLogger(__name__)


def commit(repository: str, revision: str = "") -> str:
    """Return the commit that a branch or tag of `organisation/model` means now; "" is `main`.

    Where the hub does not say, the commit that was downloaded last is returned, "" without any.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        return ""
    # Only LLMs need it, and it costs a third of a second.
    import huggingface_hub  # noqa: PLC0415
    from huggingface_hub import constants  # noqa: PLC0415

    try:
        hub = huggingface_hub.HfApi()
        info = hub.model_info(repository, revision=revision or None, timeout=ANSWER_S)
    except Exception:  # Its client lets those of its HTTP library through.
        logger.warning("the hub does not say what %s is now", repository, exc_info=True)
        return _downloaded_commit(constants.HF_HUB_CACHE, repository, revision)
    return info.sha or ""


def _downloaded_commit(cache: str, repository: str, revision: str) -> str:
    folder = Path(cache) / f"models--{repository.replace('/', '--')}"
    try:
        return (folder / "refs" / (revision or DEFAULT_REVISION)).read_text().strip()
    except OSError:
        # Something that was downloaded by its commit has no name here.
        return revision if revision and (folder / "snapshots" / revision).is_dir() else ""


def download(repository: str, commit: str) -> str:
    """Return a folder with the files of a commit, of which missing ones are downloaded first.

    Raises OSError or ValueError if that fails.
    """
    import huggingface_hub  # noqa: PLC0415

    return str(huggingface_hub.snapshot_download(repository, revision=commit))
