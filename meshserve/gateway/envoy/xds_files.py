"""The folder of Envoy's configuration files: each appears whole, in order, and only if it differs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from meshserve.gateway.envoy import envoy_config, gateway_paths, listener, routes


class ConfigFolder:
    """What Envoy was last told."""

    def __init__(self, at: gateway_paths.GatewayPaths) -> None:
        self._at = at
        self.files: Mapping[str, str] = {}

    def write(self, files: Mapping[str, str]) -> None:
        """Replace the files that differ, in the order given. Raises OSError."""
        for name, text in files.items():
            if self.files.get(name) != text:
                self._replace(name, text)
        self.files = dict(files)

    def versions(self) -> dict[str, str]:
        """What Envoy's statistics say once it works by these files: name of the statistic → value."""
        return {
            _statistic(name): envoy_config.version(text)
            for name, text in self.files.items()
            if name != envoy_config.BOOTSTRAP
        }

    def prune(self) -> None:
        """Remove the files of members that no cluster has any more."""
        for entry in Path(self._at.config_dir).iterdir():
            if entry.name not in self.files:
                entry.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._at.config_dir, ignore_errors=True)
        self.files = {}

    def _replace(self, name: str, text: str) -> None:
        unfinished = self._at.config(f".{name}")
        # The files hold API keys.
        with os.fdopen(
            os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)
        Path(unfinished).replace(self._at.config(name))


def _statistic(name: str) -> str:
    fixed = {
        envoy_config.LISTENERS: "listener_manager.lds",
        envoy_config.CLUSTERS: "cluster_manager.cds",
        envoy_config.ROUTES: f"http.{listener.STAT_PREFIX}.rds.{routes.TABLE}",
    }
    subscription = fixed.get(name) or f"cluster.{gateway_paths.cluster_of(name).replace(':', '_')}"
    return f"{subscription}.version_text"
