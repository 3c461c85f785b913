"""The reconciler alone; workers and gateways have tests of their own."""

from __future__ import annotations

from typing import Any

import pytest

from meshserve.core import backoff, state_table
from meshserve.core.processes import reconcile
from meshserve.core.processes.reconcile import ProcessMove, ProcessState
from meshserve.core.values import commands
from tests.core import diagram

POLICY = backoff.BackoffPolicy(base_s=1.0, cap_s=8.0, is_first_immediate=True)


Record = reconcile.ProcessRecord[int]


def describe(command: commands.Command) -> str:
    """Return the command of `Processes`, which speaks of gateways, in two words."""
    assert isinstance(command, commands.StartGateway | commands.StopGateway)
    return f"{'start' if isinstance(command, commands.StartGateway) else 'stop'} {command.node}"


class Processes(reconcile.Reconciler[Record, int, tuple[str, int]]):
    """Processes by name; a pair of name and settings is what is wanted."""

    looks = 0

    def _settings_by_id(self, wanted: tuple[tuple[str, int], ...]) -> dict[str, int]:
        self.looks += 1
        return dict(wanted)

    def _new_record(self, id_: str, settings: int) -> reconcile.ProcessRecord[Any]:
        return reconcile.ProcessRecord(id_, settings, backoff.Backoff(POLICY))

    def _order_start(self, record: reconcile.ProcessRecord[Any]) -> None:
        self._out.append(commands.StartGateway(record.id))

    def _order_stop(self, record: reconcile.ProcessRecord[Any]) -> None:
        self._out.append(commands.StopGateway(record.id))

    def orders(self, *wanted: tuple[str, int], now_s: float = 0.0) -> list[str]:
        self._out.clear()
        self.reconcile(wanted, now_s)
        return [describe(command) for command in self._out]


@pytest.fixture
def processes() -> Processes:
    processes = Processes([])
    processes.orders(("a", 1), ("b", 1))
    return processes


def states(processes: Processes) -> dict[str, str]:
    return {id_: record.state.value for id_, record in processes.records.items()}


def test_what_is_missing_is_started(processes: Processes) -> None:
    assert processes.orders(("a", 1), ("b", 1), ("c", 1)) == ["start c"]
    assert states(processes) == {"a": "starting", "b": "starting", "c": "starting"}


def test_what_is_not_wanted_is_stopped_once(processes: Processes) -> None:
    assert processes.orders(("a", 1)) == ["stop b"]
    assert processes.orders(("a", 1)) == []


def test_what_has_other_settings_is_stopped_and_then_started_with_them(
    processes: Processes,
) -> None:
    assert processes.orders(("a", 1), ("b", 2)) == ["stop b"]
    processes._remove(processes.records["b"], ProcessMove.STOPPED)
    assert processes.orders(("a", 1), ("b", 2)) == ["start b"]
    assert processes.records["b"].settings == 2


def test_what_is_lost_is_started_again_when_it_is_due(processes: Processes) -> None:
    wanted, lost = (("a", 1), ("b", 1)), processes.records["a"]
    for wait_s in (0.0, 1.0, 2.0):
        processes._lose(lost, "killed", 0.0)
        assert not wait_s or processes.orders(*wanted, now_s=wait_s - 0.1) == []
        assert processes.orders(*wanted, now_s=wait_s) == ["start a"]
    assert (lost.restarts, lost.reason) == (3, "killed")


def test_what_is_lost_and_not_wanted_is_forgotten(processes: Processes) -> None:
    processes._lose(processes.records["a"], "killed", 0.0)
    assert processes.orders(("b", 1)) == []
    assert states(processes) == {"b": "starting"}


def test_nothing_is_looked_at_while_nothing_has_changed_and_nothing_is_due(
    processes: Processes,
) -> None:
    wanted = (("a", 1), ("b", 1))
    processes._lose(processes.records["a"], "killed", 0.0)
    processes.orders(*wanted)
    processes._lose(processes.records["a"], "killed", 0.0)
    processes.orders(*wanted)
    looks = processes.looks
    for now_s in (0.1, 0.5, 0.9):
        processes.orders(*wanted, now_s=now_s)
    assert processes.looks == looks
    assert processes.orders(*wanted, now_s=1.0) == ["start a"]


def test_an_illegal_move_tells_the_process_s_history(processes: Processes) -> None:
    with pytest.raises(
        state_table.IllegalMove, match=r"starting can't be stopped; moves before: start ordered"
    ):
        processes._move(processes.records["a"], ProcessMove.STOPPED)


def test_the_diagram_in_the_module_is_the_table() -> None:
    assert diagram.of(reconcile.LIFECYCLE, ProcessState) in reconcile.__doc__
