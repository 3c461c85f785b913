from __future__ import annotations

import pickle

from meshserve.core.values import model, reports


def test_a_report_survives_the_way_to_the_controller():
    copy = reports.CopyReport(
        model.ModelId("a"), "failed", "it is corrupt", model.Footprint(1, 2), 3, pinned=True
    )
    learned = reports.LearnedMeasurement(
        model.ModelId("a"), model.Measured("sha256:0", model.Footprint(1, 2), 0.5)
    )
    said = reports.WorkerReport(
        "default-0", 1, "n1", "ready", 7, copies=(copy,), measured=(learned,)
    )
    assert pickle.loads(pickle.dumps(said)) == said


def test_a_report_that_says_no_more_tells_of_an_empty_worker():
    said = reports.WorkerReport("default-0", 1, "n1", "starting", 0)
    assert (said.copies, said.booked, said.counters.requests) == ((), model.Footprint(), 0)
