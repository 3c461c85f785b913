"""Which drains of nodes are granted, and by which names nodes are found."""

from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.catalog import node_table
from meshserve.core.values import events, nodes

HEAD = nodes.ClusterNode("aaaa1111", "head", "10.0.0.1", is_head=True)
SECOND = nodes.ClusterNode("bbbb2222", "second", "10.0.0.2")
THIRD = nodes.ClusterNode("bbbb3333", "10.0.0.3", "10.0.0.3")
WISH = nodes.NodeDraining("bbbb2222", 60.0)


@pytest.fixture
def table() -> node_table.NodeTable:
    seen = node_table.NodeTable()
    seen.seen = (HEAD, SECOND, THIRD)
    return seen


def asked(name: str, move_s: float = 60.0, **more: bool) -> events.NodeDrainRequested:
    return events.NodeDrainRequested(name, move_s, **more)


@pytest.mark.parametrize("name", ["second", "10.0.0.2", "bbbb2222", "bbbb2"])
def test_a_node_is_found_by_name_address_or_id(table: node_table.NodeTable, name: str) -> None:
    assert table.find(name) == SECOND


@pytest.mark.parametrize("name", ["", "fourth", "bbbb", "10.0.0", "bbbb22223", "SECOND"])
def test_what_means_no_node_or_two_is_refused_with_all_nodes(
    table: node_table.NodeTable, name: str
) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"10\.0\.0\.2 second \(bbbb2222\)"):
        table.find(name)


def test_an_exact_name_is_meant_before_the_beginning_of_an_id(table: node_table.NodeTable) -> None:
    table.seen = (*table.seen, nodes.ClusterNode("cccc4444", "bbbb2"))
    assert table.find("bbbb2").id == "cccc4444"


def test_two_nodes_of_one_name_are_told_apart_by_their_ids(table: node_table.NodeTable) -> None:
    table.seen = (HEAD, SECOND, SECOND._replace(id="cccc4444"))
    with pytest.raises(errors.InvalidRequest, match="2 nodes are called 'second'"):
        table.find("second")
    assert table.find("cccc").id == "cccc4444"


def test_a_wish_is_saved_once(table: node_table.NodeTable) -> None:
    granted = node_table.decide(table, asked("second"))
    assert granted.changes == (WISH,)
    table.apply(WISH)
    again = node_table.decide(table, asked("10.0.0.2"))
    assert (again.changes, "already" in again.words[0]) == ((), True)
    # Another time, or an end by Ray, is another wish.
    assert node_table.decide(table, asked("second", 5.0)).changes != ()
    assert node_table.decide(table, asked("second", is_ended=True)).changes != ()


def test_one_node_always_stays(table: node_table.NodeTable) -> None:
    table.apply(WISH)
    table.apply(nodes.NodeDraining("aaaa1111", 60.0))
    assert table.staying() == (THIRD,)
    with pytest.raises(errors.Conflict, match="meshserve down"):
        node_table.decide(table, asked("10.0.0.3"))


def test_of_the_head_is_told_what_stays_there(table: node_table.NodeTable) -> None:
    assert any("controller" in line for line in node_table.decide(table, asked("head")).words)
    with pytest.raises(errors.Conflict, match="Ray's head"):
        node_table.decide(table, asked("head", is_ended=True))


def test_a_wish_is_taken_back_by_name_and_when_the_node_has_left(
    table: node_table.NodeTable,
) -> None:
    table.apply(WISH)
    ended = (nodes.NodeDrainingEnded("bbbb2222"),)
    assert node_table.decide(table, events.NodeDrainEndRequested("second")).changes == ended
    assert table.gone() == ()
    table.seen = (HEAD, THIRD)
    assert table.gone() == ("bbbb2222",)
    assert node_table.decide(table, events.NodeDrainEndRequested("bbbb2222")).changes == ended
    table.apply(ended[0])
    assert table.gone() == ()
    nothing = node_table.decide(table, events.NodeDrainEndRequested("head"))
    assert (nothing.changes, "not being drained" in nothing.words[0]) == ((), True)


def test_no_node_is_gone_before_any_was_seen(table: node_table.NodeTable) -> None:
    table.apply(WISH)
    table.seen = ()
    assert table.gone() == ()
