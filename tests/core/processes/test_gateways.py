from __future__ import annotations

from typing import Any

import pytest

from meshserve.core.processes import gateways
from meshserve.core.values import commands, gateway_events, reports


def orders(gateways_: gateways.Gateways, *nodes: str, now_s: float = 0.0) -> list[Any]:
    """The commands that reconciling orders."""
    gateways_._out.clear()
    gateways_.reconcile(nodes, now_s)
    return list(gateways_._out)


@pytest.fixture
def running() -> gateways.Gateways:
    fresh = gateways.Gateways([])
    assert orders(fresh, "n1", "n2") == [commands.StartGateway("n1"), commands.StartGateway("n2")]
    for node in ("n1", "n2"):
        fresh.reported(
            gateway_events.GatewayReported(reports.GatewayReport(node, 1, 2, "ready", ":80"))
        )
    return fresh


def test_gateways_that_are_as_wanted_are_left_alone(running: gateways.Gateways) -> None:
    assert orders(running, "n1", "n2") == []


def test_a_node_that_goes_loses_its_gateway(running: gateways.Gateways) -> None:
    assert orders(running, "n1") == [commands.StopGateway("n2")]
    running.stopped(gateway_events.GatewayStopped("n2"))
    assert list(running.records) == ["n1"]


def test_a_lost_gateway_is_restarted_after_longer_and_longer_waits(
    running: gateways.Gateways,
) -> None:
    delays = []
    for _ in range(6):
        running.lost(gateway_events.GatewayLost("n1", "gone"), 0.0)
        delays.append(running.records["n1"].backoff.retry_at_s)
        assert orders(running, "n1", "n2", now_s=delays[-1]) == [commands.StartGateway("n1")]
    assert delays == [0.0, 1.0, 2.0, 4.0, 8.0, 10.0]
    assert running.records["n1"].restarts == 6


def test_a_gateway_that_serves_again_starts_from_the_beginning(running: gateways.Gateways) -> None:
    running.lost(gateway_events.GatewayLost("n1", "gone"), 0.0)
    orders(running, "n1", "n2")
    running.reported(
        gateway_events.GatewayReported(reports.GatewayReport("n1", 3, 4, "ready", ":80"))
    )
    assert (running.records["n1"].state, running.records["n1"].backoff.failures) == ("ready", 0)


def test_a_lost_gateway_waits_for_its_time(running: gateways.Gateways) -> None:
    running.records["n1"].backoff.failures = 3
    running.lost(gateway_events.GatewayLost("n1", "gone"), 100.0)
    assert [orders(running, "n1", "n2", now_s=now_s) for now_s in (100.0, 103.9)] == [[], []]
    assert orders(running, "n1", "n2", now_s=104.0) == [commands.StartGateway("n1")]
    assert orders(running, "n1", "n2", now_s=104.0) == []


def test_a_lost_gateway_that_is_not_wanted_is_forgotten(running: gateways.Gateways) -> None:
    running.lost(gateway_events.GatewayLost("n1", "gone"), 0.0)
    assert orders(running, "n2") == []
    assert list(running.records) == ["n2"]


def test_a_gateway_lost_while_it_drains_is_gone(running: gateways.Gateways) -> None:
    orders(running, "n2")
    running.lost(gateway_events.GatewayLost("n1", "gone"), 0.0)
    assert list(running.records) == ["n2"]


def test_reports_of_gateways_that_are_gone_or_going_change_nothing(
    running: gateways.Gateways,
) -> None:
    orders(running, "n2")
    for node in ("n1", "n9"):
        running.reported(
            gateway_events.GatewayReported(reports.GatewayReport(node, 3, 4, "ready", ":80"))
        )
        running.lost(gateway_events.GatewayLost("n9", "gone"), 0.0)
    assert {node: gate.state for node, gate in running.records.items()} == {
        "n1": "draining",
        "n2": "ready",
    }


def test_gateways_serve_once_all_have_the_snapshot_that_is_needed(
    running: gateways.Gateways,
) -> None:
    assert not running.are_serving
    for node in ("n1", "n2"):
        running.configured(gateway_events.GatewayConfigured(node, 0))
    assert running.are_serving
    running.configure()
    assert running.are_serving
    running.needed = running.revision
    running.configured(gateway_events.GatewayConfigured("n1", 1))
    assert not running.are_serving
    running.configured(gateway_events.GatewayConfigured("n2", 1))
    assert running.are_serving


def test_a_gateway_that_is_started_again_serves_by_nothing_at_first(
    running: gateways.Gateways,
) -> None:
    for node in ("n1", "n2"):
        running.configured(gateway_events.GatewayConfigured(node, 0))
    running.lost(gateway_events.GatewayLost("n1", "gone"), 0.0)
    orders(running, "n1", "n2")
    running.reported(
        gateway_events.GatewayReported(reports.GatewayReport("n1", 3, 4, "ready", ":80"))
    )
    assert not running.are_serving


def test_without_a_gateway_none_serves(running: gateways.Gateways) -> None:
    assert not gateways.Gateways([]).are_serving
    running.configured(gateway_events.GatewayConfigured("n9", 5))
    assert "n9" not in running.records


def test_only_gateways_that_run_are_configured(running: gateways.Gateways) -> None:
    running.lost(gateway_events.GatewayLost("n1", "gone"), 0.0)
    running._out.clear()
    running.configure()
    assert running._out == [commands.ConfigureGateway("n2")]


def test_a_snapshot_is_taken_once_all_running_gateways_have_it(running: gateways.Gateways) -> None:
    running.configured(gateway_events.GatewayConfigured("n1", 3))
    assert not running.have_taken(3)
    running.lost(gateway_events.GatewayLost("n2", "gone"), 0.0)
    assert running.have_taken(3)
    assert not running.have_taken(4)


def test_a_gateway_that_drains_takes_no_snapshots_and_may_still_pass_requests_on(
    running: gateways.Gateways,
) -> None:
    running.configured(gateway_events.GatewayConfigured("n1", 3))
    orders(running, "n1")
    assert running.have_taken(3)
    assert not running.have_all_taken(3)
    running.stopped(gateway_events.GatewayStopped("n2"))
    assert running.have_all_taken(3)
