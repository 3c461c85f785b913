"""The filter's settings on a route."""

from __future__ import annotations

import pytest

from meshserve.gateway.envoy import lua_filter


@pytest.mark.parametrize("source", lua_filter.NameSource)
def test_only_requests_to_llms_run_the_second_script(source: lua_filter.NameSource) -> None:
    task = lua_filter.task(source, 9)
    assert task["filter_context"] == {"name_source": source.value, "request_bytes_max": 9}
    assert (task.get("name") == "llm") == (source is lua_filter.NameSource.LLM)


def test_the_filter_is_disabled_without_a_task() -> None:
    assert lua_filter.http_filter()["disabled"]


def test_a_message_of_the_limit_fits_into_the_buffer_with_its_frame() -> None:
    assert lua_filter.body_bytes_max(100) == 105
