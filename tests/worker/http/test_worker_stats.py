from __future__ import annotations

from meshserve.worker.http import worker_stats


def test_latencies_fall_into_their_buckets():
    latencies = worker_stats.Latencies()
    for took_s in (0.0001, 0.0005, 0.0007, 40.0):
        latencies.add(took_s)
    assert latencies.counts[:2] == [2, 1]
    assert latencies.counts[-1] == 1
    assert (sum(latencies.counts), latencies.total_s) == (4, 0.0001 + 0.0005 + 0.0007 + 40.0)


def test_failures_are_answers_too():
    load = worker_stats.WorkerLoad()
    load.failed("InvalidRequest")
    load.failed("InvalidRequest")
    load.answered(0.1)
    load.answered(0.2)
    assert (load.requests, load.failures, load.kinds) == (2, 2, {"InvalidRequest": 2})
    assert sum(load.latencies.counts) == 2
