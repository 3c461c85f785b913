from __future__ import annotations

import pytest

from meshserve.config import schema
from tools import config_reference


@pytest.mark.parametrize(
    "row",
    [
        (
            "| `listen` | text | `127.0.0.1:8080` | HOST:PORT for gRPC and REST alike; "
            "0.0.0.0 as host listens on every interface. |"
        ),
        "| `memory` | size | `4GiB` | Host memory that one worker may use for models. |",
        "| `device` | `cpu` or `cuda` | `cpu` | Where models run. |",
        (
            "| `workers` | whole number or `auto` or mapping | `auto` | How many worker processes; "
            "`auto`: one for each core, 16 at most, or one for each GPU. With `min` and `max` the "
            "pool follows its load; see below. |"
        ),
        "| `name` | text | **needed** | What clients call it. |",
        (
            "| `sleep_level` | `1` or `2` | `1` | Whether a sleeping LLM keeps its weights in host "
            "memory (1) or keeps nothing (2). |"
        ),
        "| `keys` | list |  | API keys. Without any, every client may do everything. |",
    ],
)
def test_the_reference_has_a_row_for_each_key(row: str) -> None:
    assert row in config_reference.markdown().splitlines()


def test_the_reference_has_all_sections() -> None:
    described = [section for _, section in config_reference.SECTIONS]
    keys = [key for section in described for key in section.model_fields.values()]
    below = {section for key in keys for section in schema.sections_in(key.annotation)}
    assert set(described) == {schema.Config, *below}
