"""The client against a keeper of the test's own; test_envoy_keeper.py has the real one."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshserve.gateway.envoy import gateway_paths, keeper_client
from tests import support

pytestmark = pytest.mark.edge


class Keeper:
    """Sends what the test says, and records the words of its owner."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.greeting = {"pid": 7, "starts": 1, "code": None, "is_owner": True}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.say(self.greeting)
        while line := await reader.readline():
            self.heard.append(json.loads(line))
        writer.close()

    def say(self, state: Any) -> None:
        self.writers[-1].write(json.dumps(state).encode() + b"\n")


class Stage:
    def __init__(self, run_dir: str) -> None:
        self.keeper, self.changes = Keeper(), 0
        self.layout = gateway_paths.GatewayPaths(run_dir)
        self.client = keeper_client.KeeperClient(self.layout, self.changed)

    def changed(self) -> None:
        self.changes += 1


@pytest.fixture
async def stage(run_dir: str) -> AsyncIterator[Stage]:
    new = Stage(run_dir)
    async with await asyncio.start_unix_server(new.keeper.serve, new.layout.keeper_socket):
        yield new
        for writer in new.keeper.writers:
            writer.close()
        await new.client.wait_until_ended()


async def test_a_keeper_tells_its_state_at_once_and_each_change(stage: Stage) -> None:
    assert await stage.client.find()
    assert stage.client.state == keeper_client.EnvoyState(7, 1)
    stage.keeper.say({"pid": 8, "starts": 2, "code": -9, "is_owner": True})
    await support.wait_until_async(lambda: stage.changes, what="the change")
    assert stage.client.state == keeper_client.EnvoyState(8, 2, -9)


async def test_the_end_of_a_keeper_is_the_end_of_envoy(stage: Stage) -> None:
    assert await stage.client.find()
    stage.keeper.writers[0].close()
    await stage.client.wait_until_ended()
    assert (stage.client.state, stage.client.is_connected) == (
        keeper_client.EnvoyState(0, 1),
        False,
    )


async def test_what_is_held_is_told_to_the_next_keeper_too(stage: Stage) -> None:
    assert await stage.client.find()
    stage.client.hold(["tcp://h:1"])
    await support.wait_until_async(lambda: stage.keeper.heard, what="the word")
    stage.keeper.writers[0].close()
    await stage.client.wait_until_ended()
    assert await stage.client.find()
    await support.wait_until_async(lambda: len(stage.keeper.heard) == 2, what="the word again")
    assert stage.keeper.heard == [{"hold": ["tcp://h:1"]}] * 2


async def test_a_port_is_closed_to_new_clients_on_order(stage: Stage) -> None:
    assert await stage.client.find()
    stage.client.refuse()
    await support.wait_until_async(lambda: stage.keeper.heard, what="the word")
    assert stage.keeper.heard == [{"refuse": True}]


@pytest.mark.parametrize("greeting", [{}, [1], {"new": 1}])
async def test_a_socket_of_another_program_is_no_keeper(stage: Stage, greeting: Any) -> None:
    stage.keeper.greeting = greeting
    assert await stage.client.find() is (greeting == {})


async def test_a_dead_keepers_socket_is_no_keeper(run_dir: str) -> None:
    stage = Stage(run_dir)
    assert not await stage.client.find()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(stage.layout.keeper_socket)
    assert not await stage.client.find()
    await stage.client.stop()


async def test_only_envoys_of_the_folder_are_killed_as_orphans(stage: Stage) -> None:
    stage.keeper.greeting["pid"] = os.getpid()
    assert await stage.client.find()
    await asyncio.to_thread(stage.client.end_orphan)


async def test_an_orphan_is_killed(stage: Stage) -> None:
    # The folder of the configuration in the arguments is how it is known.
    orphan = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", "read x", stage.layout.config_dir, stdin=asyncio.subprocess.PIPE
    )
    stage.keeper.greeting["pid"] = orphan.pid
    assert await stage.client.find()
    await asyncio.to_thread(stage.client.end_orphan)
    assert await orphan.wait() == -9
