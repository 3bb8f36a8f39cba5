"""What all lanes of a process use."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from harvester.engine.capacity import Capacity
from harvester.engine.claims import Claims
from harvester.engine.committer import Committer
from harvester.engine.halts import Halts
from harvester.engine.lease import Lease
from harvester.engine.patience import Patience
from harvester.engine.time_check import TimeCheck
from harvester.engine.uploader import Uploader
from harvester.engine.workspaces import Workspaces
from harvester.ledger import Ledger

Spawn = Callable[[Coroutine[Any, Any, object]], object]
"""Starts a task of the engine, whose failure ends the engine."""


@dataclass(frozen=True, slots=True)
class Shared:
    """The objects of an engine that exist once."""

    ledger: Ledger
    workspaces: Workspaces
    claims: Claims
    committer: Committer
    uploader: Uploader
    time: TimeCheck
    halts: Halts
    patience: Patience
    lease: Lease
    capacity: Capacity
    spawn: Spawn
    is_stopping: Callable[[], bool]
