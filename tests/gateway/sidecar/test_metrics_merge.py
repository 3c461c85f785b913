"""Pages of metrics merged into one, read back by Prometheus' own parser."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from meshserve.gateway.sidecar import metrics_merge

WORKER = """\
# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{model="iris",worker="default-0"} 3.0
# HELP latency_seconds Time.
# TYPE latency_seconds histogram
latency_seconds_bucket{le="0.1",model="a,worker=\\"x\\"}"} 1
latency_seconds_bucket{le="+Inf"} 2
latency_seconds_sum 0.5
latency_seconds_count 2
process_cpu_seconds_total 12
"""


def parsed(page: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(page)}


def test_every_family_is_named_once_and_keeps_its_samples() -> None:
    page = metrics_merge.merge(
        {"default-0": WORKER, "default-1": WORKER.replace("default-0", "default-1")}
    )
    for name in ("requests_total", "latency_seconds"):
        assert page.count(f"# TYPE {name} ") == page.count(f"# HELP {name} ") == 1
    families = parsed(page)
    assert {sample.labels["worker"] for sample in families["requests"].samples} == {
        "default-0",
        "default-1",
    }
    assert len(families["latency_seconds"].samples) == 8
    lines = page.splitlines()
    assert lines.index("# TYPE latency_seconds histogram") < lines.index(
        'latency_seconds_sum{process="default-1"} 0.5'
    )
    assert lines[-1].startswith("process_cpu_seconds_total")


def test_series_without_a_worker_get_their_process() -> None:
    page = metrics_merge.merge({"default-0": WORKER, "controller": WORKER})
    assert 'process_cpu_seconds_total{process="default-0"} 12' in page
    assert 'process_cpu_seconds_total{process="controller"} 12' in page
    assert 'requests_total{model="iris",worker="default-0"} 3.0' in page
    assert (
        'latency_seconds_bucket{le="0.1",model="a,worker=\\"x\\"}",process="controller"} 1' in page
    )


def test_a_replicas_series_get_its_labels() -> None:
    page = metrics_merge.merge(
        {"a/0": 'hits{model_name="/x"} 1\nhits{model="own",worker="w",} 2\nup 3\n', "b": "up 4\n"},
        {"a/0": {"model": 'a"\\\n', "replica": "a/0"}},
    )
    samples = [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]
    assert samples == [
        ("hits", {"model_name": "/x", "model": 'a"\\\n', "replica": "a/0"}, 1),
        ("hits", {"model": "own", "worker": "w", "replica": "a/0"}, 2),
        ("up", {"model": 'a"\\\n', "replica": "a/0"}, 3),
        ("up", {"process": "b"}, 4),
    ]


def test_a_sample_that_only_begins_with_a_familys_name_is_not_its() -> None:
    page = metrics_merge.merge(
        {"a": "# TYPE up gauge\nup 1\nuptime 5\n", "b": "# TYPE up gauge\nup 2\n"}
    )
    assert page.splitlines() == [
        "# TYPE up gauge",
        'up{process="a"} 1',
        'up{process="b"} 2',
        'uptime{process="a"} 5',
    ]


def test_lines_that_are_no_metric_are_dropped() -> None:
    assert metrics_merge.merge({"a": "<html>502</html>\n\n# a remark\n{} 1\nup\n", "b": ""}) == ""


names = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
characters = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=10)
values = characters.map(lambda text: text.replace("\\", "\\\\").replace('"', '\\"'))


@given(
    st.dictionaries(names, values, max_size=3), st.lists(names, min_size=1, max_size=4, unique=True)
)
def test_no_two_series_are_the_same(labels: dict[str, str], processes: list[str]) -> None:
    inside = ",".join(
        f'{name}="{value}"' for name, value in labels.items() if name not in {"process", "worker"}
    )
    sample = f"metric{{{inside}}} 1\n"
    page = metrics_merge.merge(dict.fromkeys(processes, sample))
    samples = [
        tuple(sorted(sample.labels.items()))
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]
    assert len(samples) == len(set(samples)) == len(processes)
