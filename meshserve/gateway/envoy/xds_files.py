"""The folder of Envoy's configuration files: each is replaced at once, in order, if it differs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from meshserve.gateway.envoy import envoy_config, gateway_paths, listener, routes


class ConfigFolder:
    """The files that Envoy follows. `files` has the text of each by its name."""

    def __init__(self, layout: gateway_paths.GatewayPaths) -> None:
        self._layout = layout
        self.files: Mapping[str, str] = {}

    def write(self, files: Mapping[str, str]) -> None:
        """Replace the files that differ, in the given order. Raises OSError."""
        for name, text in files.items():
            if self.files.get(name) != text:
                self._replace(name, text)
        self.files = dict(files)

    def read(self) -> None:
        """Take the files that an earlier gateway has written as those that Envoy works by."""
        entries = Path(self._layout.config_dir).glob("[!.]*")
        self.files = {entry.name: entry.read_text(encoding="utf-8") for entry in entries}

    def versions(self) -> dict[str, str]:
        """Return the value of each of Envoy's statistics once it works by these files."""
        return {
            _statistic(name): envoy_config.version(text)
            for name, text in self.files.items()
            if name != envoy_config.BOOTSTRAP
        }

    def prune(self) -> None:
        """Remove the members' files of clusters that are gone."""
        for entry in Path(self._layout.config_dir).iterdir():
            if entry.name not in self.files:
                entry.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._layout.config_dir, ignore_errors=True)
        self.files = {}

    def _replace(self, name: str, text: str) -> None:
        # Envoy reads a file when one is moved to its path, and must never see a part of it. Only
        # the owner may read it, because it holds API keys.
        unfinished = self._layout.config(f".{name}")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(unfinished).replace(self._layout.config(name))


def _statistic(name: str) -> str:
    fixed = {
        envoy_config.LISTENERS: "listener_manager.lds",
        envoy_config.CLUSTERS: "cluster_manager.cds",
        envoy_config.ROUTES: f"http.{listener.STAT_PREFIX}.rds.{routes.TABLE}",
    }
    # Envoy writes `_` for a colon in the names of statistics.
    subscription = fixed.get(name) or f"cluster.{gateway_paths.cluster_of(name).replace(':', '_')}"
    return f"{subscription}.version_text"
