"""Requests to the core's planner, and its answers."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from typing import Any, Mapping, Optional

from . import _devices, _failures, documents
from ._recovery import RecoveryAction, RecoveryStrategy

_MOVES = (RecoveryStrategy.DIFFERENT_WORKER, RecoveryStrategy.DIFFERENT_HARDWARE_CLASS)


@dataclass
class Subject:
    """A task and its recovery state."""

    task_id: str
    attempt: int
    spec: dict[str, Any]
    #: The config of a task of the caller's own.
    config: Optional[dict[str, Any]]
    state: Mapping[str, Any]
    retries: int
    #: The worker where it failed; empty if unknown.
    worker: str
    #: The device on which it ran, if reported.
    hardware: Optional[str] = None
    #: Devices that are named outside of the task: see :mod:`outlast._devices`.
    asked: tuple[dict[str, Any], ...] = ()

    def devices(self) -> list[dict[str, Any]]:
        """All devices that the task requests."""
        own = _devices.of_spec(self.spec) if self.config is None else []
        return [*own, *_devices.of_config(self.config), *self.asked]


def answer(
    of: Subject,
    table: documents.RecoveryTable,
    members: list[documents.Worker],
    failures: list[dict[str, Any]],
    seen: Mapping[str, Any],
    failure_type: Optional[str] = None,
    strategy: Optional[RecoveryStrategy] = None,
) -> dict[str, Any]:
    """The planner's answer: see ``decide`` in the core's ``recovery::reported``."""
    from ._outlast import recovery_plan

    asked, hardware = of.devices(), of.hardware
    if hardware is None and of.config is not None and "device" not in of.config.get("knobs", {}):
        hardware = _devices.first(asked)
    found = json.loads(recovery_plan(json.dumps({
        "table": table,
        "task": of.task_id,
        "attempt": of.attempt,
        "spec": of.spec,
        "state": of.state,
        "retries": of.retries,
        "seen": seen,
        "failure_type": failure_type,
        "asked": asked,
        "strategy": None if strategy is None else strategy.value,
        "worker": of.worker,
        "hardware": hardware,
        "workers": [_failures.member(m) for m in sorted(members, key=_failures.busy)],
        "failures": failures,
        "now": int(time.time() * 1000),
        "jitter": random.uniform(-1, 1),
    })))  # fmt: skip
    return dict(found)


def action(of: Subject, found: Mapping[str, Any], checkpoint: Any) -> RecoveryAction:
    """The planner's answer as an action."""
    strategy = RecoveryStrategy(found["strategy"])
    target = found["others"][0] if strategy in _MOVES and found["others"] else None
    if strategy is RecoveryStrategy.BROWSER_RESTART:
        target = of.worker or None
    modified = found["spec"]
    if modified is not None and of.config is not None:
        modified = {**of.config, **found["knobs"], "knobs": modified.get("knobs", {})}
    return RecoveryAction(
        strategy,
        target,
        found["delay_ms"] / 1000,
        modified,
        checkpoint,
        message=found["message"],
        hardware_requirements=found["requires"],
    )
