"""`meshserve schema` and `meshserve config check`; how commands read a configuration file."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from meshserve import config
from meshserve.cli import terminal, units
from meshserve.llm import engine_lookup, model_folder

app = typer.Typer(no_args_is_help=True, help="Look at configuration files.")


def load(file: str | os.PathLike[str]) -> config.Config:
    """Return the configuration in a file; the engines check their arguments.

    What models name on the network must be there, as far as a server says so. Raises
    ConfigInvalid, with one line for each fault.
    """
    return config.load(file, _check_beyond_file)


def _check_beyond_file(settings: config.Config) -> Iterator[config.Diagnostic]:
    yield from _check_engine_arguments(settings)
    yield from _check_model_folders(settings)
    yield from _check_sources(settings)


def _check_here(settings: config.Config) -> Iterator[config.Diagnostic]:
    # Imported late: `up` finds the same out where it starts, and it needs more than most commands.
    machine_checks: Any = importlib.import_module("meshserve.cli.machine_checks")
    yield from _check_beyond_file(settings)
    yield from machine_checks.place_faults(settings)
    yield from machine_checks.model_faults(settings)


def _check_model_folders(settings: config.Config) -> Iterator[config.Diagnostic]:
    for index, llm in enumerate(settings.llms):
        if llm.runtime == engine_lookup.DEFAULT:
            for key, message in model_folder.faults(llm.uri, llm.engine):
                yield config.Diagnostic(("llms", index, *key), message)


def _check_sources(settings: config.Config) -> Iterator[config.Diagnostic]:
    # Local paths have been checked while the file was read.
    uris = {index: entry.uri for index, entry in enumerate(settings.models) if "://" in entry.uri}
    if not uris:
        return
    # Imported late, because few commands and few configurations need its libraries.
    source_check: Any = importlib.import_module("meshserve.storage.source_check")
    missing = asyncio.run(source_check.find_missing(uris.values()))
    for index, uri in uris.items():
        if uri in missing:
            yield config.Diagnostic(("models", index, "uri"), missing[uri])


def can_check_engines(settings: config.Config) -> bool:
    """Return whether the engines of all LLMs are installed here, to check their arguments."""
    kinds = (engine_lookup.installed(llm.runtime) for llm in settings.llms)
    return not any(kind is not None and kind.install_hint() for kind in kinds)


def _check_engine_arguments(settings: config.Config) -> Iterator[config.Diagnostic]:
    # An engine that is not installed here can't check, but the machine that runs it may have it.
    for runtime in sorted({llm.runtime for llm in settings.llms}):
        kind = engine_lookup.installed(runtime)
        if kind is None:
            continue
        # All LLMs of one kind at once: vLLM checks in a child process, whose start takes seconds.
        indices = [index for index, llm in enumerate(settings.llms) if llm.runtime == runtime]
        faults_by_llm = kind.argument_faults([settings.llms[index].engine for index in indices])
        for index, faults in zip(indices, faults_by_llm, strict=True):
            for key, message in faults:
                yield config.Diagnostic(("llms", index, "engine", key), message)


def schema() -> None:
    """Print the JSON Schema of config.yaml, for editors."""
    sys.stdout.write(f"{json.dumps(config.json_schema(), indent=2)}\n")


@app.command("check")
def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="A config.yaml.")]) -> None:
    """Say whether a configuration is good, here and now; start nothing."""
    settings = config.load(file, _check_here)
    out = terminal.out()
    counts = [
        units.number(len(settings.models), "model"),
        units.number(len(settings.repositories), "repository"),
        *([units.number(len(settings.llms), "LLM")] if settings.llms else []),
    ]
    out.print(f"{file} is good: {', '.join(counts)}", soft_wrap=True)
    if settings.llms and not can_check_engines(settings):
        out.print(
            "  vLLM is not installed here (extras llm, llm-cpu): "
            "arguments of engines were not checked",
            style="yellow",
            soft_wrap=True,
        )
    pools = ", ".join(
        f"{name} ({pool.workers_in_words} × {units.size(pool.memory)}, {pool.device})"
        for name, pool in settings.pools.items()
    )
    out.print(
        f"  gateway {settings.gateway.listen}\n  pools   {pools}\n  state   {settings.state_dir}",
        soft_wrap=True,
    )
