"""The base class of all sections, and the types of their keys.

Each type converts a user's value to one form, or raises a ValueError that says what is expected.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    Strict,
    ValidationInfo,
    WithJsonSchema,
)

from meshserve.config import diagnostics, samples
from meshserve.core.values import desired

UNITS: dict[str, int] = {"": 1, "B": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("KMGT", start=1)
    for base, suffixes in ((1000, ("", "B")), (1024, ("I", "IB")))
    for suffix in suffixes
}
# Fractions and any case are allowed, because people write 1.5GB, 2Gi and 512mib.
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
PORT_MAX = 65535
NUMBER, RANGE = "[number]", "[range]"
"""Tags of the two forms of a key. Pydantic puts them into the paths of errors."""

POOL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
IMAGE = r"^\S*$"
CHECKSUM = r"^(sha256:[0-9a-f]{64})?$"
LABEL_KEY = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
ORIGIN = r"^(\*|[a-z][a-z0-9+.-]*://[^/\s]+)$"
PATTERNS = {
    POOL_NAME: "a name of letters, digits, '.', '_' and '-'",
    ORIGIN: "an origin as browsers send it, such as https://shop.example:8443, or *",
    IMAGE: "the name of an image without spaces",
    LABEL_KEY: "a label's name: letters, digits, '.', '_' and '-', 63 at most, or DOMAIN/NAME",
    LABEL_VALUE: "a label's value: letters, digits, '.', '_' and '-', 63 at most",
    CHECKSUM: "sha256: and 64 hexadecimal digits in lower case",
}


class Section(BaseModel):
    """A part of config.yaml: frozen, and strict about its keys.

    The text below each key is its description in docs/config.md and in the JSON Schema.
    """

    model_config = ConfigDict(
        # `forbid`, because a misspelt key would be ignored, and its default would count.
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
    )


def parse_size(value: object) -> int:
    """Return the bytes of `4GiB`, `1.5GB` or a plain number. Raises ValueError otherwise."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = SIZE.fullmatch(value) if isinstance(value, str) else None
    factor = UNITS.get(match[2].upper()) if match else None
    if match is None or factor is None:
        raise ValueError(
            "expected a size such as 512MiB, 4GiB, 1.5GB or a number of bytes, "
            f"got {diagnostics.shown(value)}"
        )
    return round(float(match[1]) * factor)


def _positive(size: int) -> int:
    if size == 0:
        raise ValueError("must be more than 0")
    return size


def _workers(value: object) -> object:
    # A bool is an int in Python, but `true` is no number of workers.
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value != "auto" and not is_count:
        raise ValueError(
            f"expected auto or a whole number of at least 1, got {diagnostics.shown(value)}"
        )
    if isinstance(value, int) and value > desired.WORKERS_MAX:
        raise ValueError(f"a pool has {desired.WORKERS_MAX} workers at most, got {value}")
    return value


def _version(value: object) -> object:
    # YAML reads 1.10 as the number 1.1, so a version without quotes may have lost digits.
    if isinstance(value, float):
        # Not a TypeError: pydantic collects only ValueErrors.
        raise ValueError(f"put it in quotes: a version is text, and {value} is a number")  # noqa: TRY004
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (host and colon and port.isdecimal() and 1 <= int(port) <= PORT_MAX):
        raise ValueError(
            f"expected HOST:PORT such as 127.0.0.1:8080, got {diagnostics.shown(value)}"
        )
    return value


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches an address HOST:PORT."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _client_name(value: str) -> str:
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError(
            f"a name is printable text without spaces at its ends, got {diagnostics.shown(value)}"
        )
    return value


def _not_flag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"expected a whole number, got {diagnostics.shown(value)}")  # noqa: TRY004
    return value


def _name(value: str) -> str:
    if not value or value != value.strip() or "/" in value or not value.isprintable():
        raise ValueError(
            "a name is printable text without '/' and without spaces at its ends, "
            f"got {diagnostics.shown(value)}"
        )
    return value


def _folder(info: ValidationInfo) -> Path | None:
    context: Mapping[str, Any] = info.context or {}
    return context.get("folder")


def _may_read(info: ValidationInfo) -> bool:
    context: Mapping[str, Any] = info.context or {}
    return bool(context.get("may_read", True))


def _absolute(value: str, folder: Path | None) -> Path:
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise ValueError(
            f"expected a path, got {diagnostics.shown(value)}: there is no such user"
        ) from None
    if path.is_absolute():
        return path
    if folder is None:
        raise ValueError(f"expected an absolute path or a URI, got {diagnostics.shown(value)}")
    # Links are not resolved: where one leads may change while the mesh runs.
    return Path(os.path.normpath(folder / path))


def _absolute_path(value: Path, info: ValidationInfo) -> Path:
    return _absolute(str(value), _folder(info))


def _existing(path: Path, info: ValidationInfo) -> Path:
    # Without a file's folder, the configuration may come from another machine with other files.
    if _folder(info) is None or _exists(path):
        return path
    try:
        neighbours = [other.name for other in path.parent.iterdir()]
    except OSError:
        neighbours = []
    hint = diagnostics.did_you_mean(path.name, neighbours)
    raise ValueError(f"no such file or folder: {path}{hint}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, or a folder without permission
        return False


def _source(value: str, info: ValidationInfo) -> str:
    scheme = SCHEME.match(value)
    if scheme and scheme[1].lower() != "file":
        return value
    local = unquote(value[len("file://") :].removeprefix("localhost")) if scheme else value
    return str(_existing(_absolute(local, _folder(info)), info))


def _local_folder(value: Path, info: ValidationInfo) -> Path:
    return _existing(_absolute_path(value, info), info)


def _finite(value: JsonValue) -> JsonValue:
    # A configuration is kept as JSON, which would make `null` of infinity.
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError("expected finite numbers, got .inf or .nan among them") from None
    return value


def _sample(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str) and not _may_read(info):
        raise ValueError("expected values: a request can't name a file of the mesh's machine")
    return samples.read_sample(value, _folder(info))


def _database(value: str, info: ValidationInfo) -> str:
    # SQLAlchemy has three slashes before a relative path and four before an absolute one.
    if value.startswith("sqlite:///") and not value.startswith("sqlite:////"):
        return f"sqlite:///{_absolute(value.removeprefix('sqlite:///'), _folder(info))}"
    if not value.startswith(("sqlite:////", "postgresql://", "postgresql+")):
        raise ValueError(
            f"expected sqlite:///FILE or postgresql://…, got {diagnostics.shown(value)}"
        )
    return value


# Strict, because pydantic would take "yes" and 1 for true, and text for a number.
Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict()]
Whole = Annotated[int, Strict()]
Natural = Annotated[int, Strict(), Field(ge=0)]
Count = Annotated[int, Strict(), Field(ge=1)]
# YAML has .inf and .nan, which are no durations.
Seconds = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Duration = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
NotFlag = BeforeValidator(_not_flag)
"""For keys with literal numbers: without it `true` would be accepted, because it equals 1."""
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^\d+(\.\d+)? *([KMGT]i?)?B?$"},
            ],
            "title": "size",
        }
    ),
]
PositiveSize = Annotated[Size, AfterValidator(_positive)]
Workers = Annotated[int | Literal["auto"], BeforeValidator(_workers)]
# YAML reads `off` as false.
Switch = Annotated[
    Literal["auto", "off"],
    BeforeValidator(lambda value: "off" if value is False else value),
    WithJsonSchema({"enum": ["auto", "off", False]}),
]
Version = Annotated[
    Text,
    AfterValidator(_name),
    BeforeValidator(_version),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}]}),
]
Name = Annotated[Text, Field(max_length=255), AfterValidator(_name)]
ClientName = Annotated[Text, Field(max_length=255), AfterValidator(_client_name)]
Origin = Annotated[Text, Field(pattern=ORIGIN)]
LabelKey = Annotated[Text, Field(pattern=LABEL_KEY)]
LabelValue = Annotated[Text, Field(pattern=LABEL_VALUE)]
# Short, because it is part of the paths of its workers' sockets, which Linux bounds to 107 bytes.
PoolName = Annotated[Text, Field(pattern=POOL_NAME, max_length=40)]
Address = Annotated[Text, AfterValidator(_address)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute_path)]
Folder = Annotated[Path, AfterValidator(_local_folder)]
Source = Annotated[Text, Field(min_length=1), AfterValidator(_source)]
Sample = Annotated[
    dict[str, JsonValue],
    AfterValidator(samples.check_values),
    BeforeValidator(_sample),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string"}]}),
]
Json = Annotated[JsonValue, AfterValidator(_finite)]
Database = Annotated[Text, AfterValidator(_database)]
Isolation = Literal["none", "process"]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
