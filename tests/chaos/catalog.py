"""Every fault of the chaos run, and how often it strikes."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.chaos import churn, hostile, processes, world

Strike = Callable[[world.World, random.Random], Awaitable[None]]


class Fault(NamedTuple):
    """What strikes, and how many times a minute."""

    strike: Strike
    per_minute: float


FAULTS: dict[str, Fault] = {
    "kill worker": Fault(processes.kill_worker, 2),
    "stop worker": Fault(processes.stop_worker, 2),
    "kill controller": Fault(processes.kill_controller, 1),
    "stop controller": Fault(processes.stop_controller, 1),
    "kill gateway": Fault(processes.kill_gateway, 1),
    "stop gateway": Fault(processes.stop_gateway, 1),
    "kill Envoy": Fault(processes.kill_envoy, 1),
    "stop Envoy": Fault(processes.stop_envoy, 1),
    "kill replica": Fault(processes.kill_replica, 1),
    "kill isolated": Fault(processes.kill_isolated, 2),
    "stop isolated": Fault(processes.stop_isolated, 1),
    "replace": Fault(churn.replace, 6),
    "register and delete": Fault(churn.register_and_delete, 6),
    "unload": Fault(churn.unload, 4),
    "broken registration": Fault(churn.break_registration, 2),
    "new version": Fault(churn.new_version, 3),
    "overwrite": Fault(churn.overwrite, 3),
    "broken version": Fault(churn.break_version, 2),
    "spoiled cache": Fault(churn.spoil_cache, 3),
    "removed cache": Fault(churn.remove_cache, 0.5),
    "poison": Fault(hostile.poison, 2),
    "malformed": Fault(hostile.malformed, 3),
    "gzip bomb": Fault(hostile.gzip_bomb, 1),
    "slow bodies": Fault(hostile.slow_bodies, 2),
    "abandoned calls": Fault(hostile.abandon, 3),
    "wrong keys": Fault(hostile.wrong_keys, 2),
    "resets": Fault(hostile.reset_connections, 2),
}
WEIGHTS = {name: fault.per_minute for name, fault in FAULTS.items()}
