"""Write the generated parts of docs/config.md, docs/errors.md and docs/cli.md from the code.

    python -m tools.reference            # write them
    python -m tools.reference --check    # exit code 1 if they are out of date

The text around the generated parts stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from google.rpc import code_pb2

from meshserve import errors
from meshserve.cli import main as cli
from tools import config_reference, marked_text

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
COMMAND = "make docs"
PROGRAM = "meshserve"
# Options that many commands share; the page says once what they do.
SHARED = {"--help", "--json", "--endpoint"}


def errors_markdown() -> str:
    """Return a table of every error: its name, its gRPC code, its HTTP status, its meaning."""
    rows = [
        f"| `{kind.__name__}` | {code} | {kind.http_status} | {_meaning(kind)} |"
        for kind in _tree(errors.MeshError)
        if kind is not errors.MeshError and (code := code_pb2.Code.Name(kind.grpc_code))
    ]
    return "\n".join(("| error | gRPC | HTTP | meaning |", "|---|---|---|---|", *rows))


def _tree(kind: type[errors.MeshError]) -> Iterator[type[errors.MeshError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child)


def _meaning(kind: type[errors.MeshError]) -> str:
    return (kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def cli_markdown() -> str:
    """Return a section for each command: its usage, what it does, its arguments and options."""
    group = typer.main.get_command(cli.app)
    context = typer.Context(group, info_name=PROGRAM)
    return "\n\n".join(_commands(group, context, PROGRAM))


def _commands(group: Any, context: Any, path: str) -> Iterator[str]:
    for name in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [name])
        inner = type(context)(command, info_name=name, parent=context)
        if hasattr(command, "list_commands"):
            yield from _commands(command, inner, f"{path} {name}")
        else:
            yield "\n\n".join(_command(command, inner, f"{path} {name}"))


def _command(command: Any, context: Any, path: str) -> Iterator[str]:
    yield f"### `{path}`"
    yield " ".join((command.help or "").split())
    usage = " ".join(command.collect_usage_pieces(context)).translate({123: "", 125: ""})
    yield f"    {path} {usage}"
    records = [record for parameter in command.get_params(context) for record in _row(parameter)]
    if records:
        yield "\n".join(("| option | what it does |", "|---|---|", *records))


def _row(parameter: Any) -> Iterator[str]:
    if SHARED & set(parameter.opts) or not getattr(parameter, "help", None):
        return
    names = ", ".join(parameter.opts) if parameter.param_type_name == "option" else ""
    words = " ".join(filter(None, (names, parameter.metavar or "")))
    cells = (f"`{words or parameter.human_readable_name}`", " ".join(parameter.help.split()))
    yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


PARTS: dict[str, Callable[[], str]] = {
    "config": config_reference.markdown,
    "errors": errors_markdown,
    "cli": cli_markdown,
}


def fresh(name: str) -> str:
    """Return the page `docs/NAME.md` with its generated part as the code is now."""
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    return marked_text.replace(text, marked_text.begin(name, COMMAND), PARTS[name]())


def main() -> int:
    """Write the pages, or with --check return 1 if one of them is out of date."""
    pages = {DOCS / f"{name}.md": fresh(name) for name in PARTS}
    stale = [path for path, text in pages.items() if path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(path.relative_to(ROOT))
        if "--check" not in sys.argv:
            path.write_text(pages[path], encoding="utf-8")
    return int("--check" in sys.argv and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
