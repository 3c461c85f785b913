from __future__ import annotations

import pickle

from meshserve.core.values import model, reports


def test_a_report_can_be_pickled() -> None:
    copy = reports.CopyReport(
        model.ModelId("a"), "failed", "it is corrupt", model.Footprint(1, 2), 3, pinned=True
    )
    learned = reports.LearnedMeasurement(
        model.ModelId("a"), model.Measured("sha256:0", model.Footprint(1, 2), 0.5)
    )
    report = reports.WorkerReport(
        "default-0", 1, "n1", "ready", 7, copies=(copy,), measured=(learned,)
    )
    assert pickle.loads(pickle.dumps(report)) == report


def test_the_defaults_of_a_report_describe_an_empty_worker() -> None:
    report = reports.WorkerReport("default-0", 1, "n1", "starting", 0)
    assert (report.copies, report.booked, report.counters.requests) == ((), model.Footprint(), 0)
