"""Requests to a coordinator that carry out a recovery action."""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any, Callable, Literal, Optional, TypedDict

from . import _devices, _failures, documents
from ._recovery import RecoveryAction, RecoveryStrategy
from .client import Client
from .errors import NotFound, OutlastError, Refused

log = logging.getLogger("outlast.fault_tolerance")

_MOVES = (RecoveryStrategy.DIFFERENT_WORKER, RecoveryStrategy.DIFFERENT_HARDWARE_CLASS)
_AS_IT_IS = (
    RecoveryStrategy.IMMEDIATE_RETRY,
    RecoveryStrategy.DELAYED_RETRY,
    RecoveryStrategy.BROWSER_RESTART,
)
_NOT_OFFERED = {
    RecoveryStrategy.SKIP_CHECKPOINTING: "checkpoints are made by the task itself, and one that"
    " fails does not fail it",
    RecoveryStrategy.RESET_WORKER_STATE: "a worker's state is its own. Quarantine the worker"
    " (quarantine_worker), or restart it",
}


def ask(client: Client, what: str, subject: Optional[str] = None) -> Any:
    """See ``recovery_ask`` of the extension."""
    from ._outlast import recovery_ask

    return json.loads(recovery_ask(client._raw, what, subject))


def task(client: Client, task_id: str) -> Optional[documents.Task]:
    """The document of a task; None if the coordinator does not have the task."""
    try:
        return client.info(task_id)
    except NotFound:
        return None


#: Creates an action with a strategy for a task of the coordinator; raises OutlastError if the strategy
#: does not apply.
Forced = Callable[[documents.Task, RecoveryStrategy], RecoveryAction]


class Done(TypedDict):
    """Result of :meth:`outlast.fault_tolerance.RecoveryManager.apply_recovery_action`."""

    task_id: str
    did: Literal["nothing", "move", "retry", "submit"]
    text: str


def apply(
    client: Client, task_id: str, action: RecoveryAction, wait: bool, forced: Forced
) -> Done:
    """See :meth:`outlast.fault_tolerance.RecoveryManager.apply_recovery_action`."""
    strategy, word = action.strategy, action.strategy.value
    if strategy in _NOT_OFFERED:
        raise OutlastError(f"{word} cannot be applied: {_NOT_OFFERED[strategy]}")
    found = task(client, task_id)
    if found is None:
        raise NotFound(
            f"the coordinator has no task {task_id}: apply {word} where it runs, or submit it", 404
        )
    state = found["state"]
    if strategy is RecoveryStrategy.ESCALATION:
        log.error("task %s needs an operator: %s", task_id, action.message)
        return _did(task_id, "nothing", "an operator has to decide; the log has the reason")
    if state in ("succeeded", "cancelled"):
        raise OutlastError(f"{word} cannot be applied: task {task_id} is {state}")
    if state == "failed":
        return _again(client, found, action, wait, forced)
    last = next((e for e in reversed(client.history(task_id)) if _failures.decides(e)), None)
    if last is not None and last["recovery"]["text"] == action.message:
        return _did(task_id, "nothing", "the coordinator has decided on it and carries it out")
    return _elsewhere(client, found, action, forced)


def _elsewhere(
    client: Client, found: documents.Task, action: RecoveryAction, forced: Forced
) -> Done:
    """Applies an action to a task that waits or runs."""
    task_id, word, to = found["id"], action.strategy.value, action.worker_id
    runs = found["state"] == "assigned"
    if action.strategy in _MOVES:
        if to is None and (not runs or _devices.of_spec(found["spec"])):
            # Only the planner knows which workers have the device, or which are left for a waiting task.
            try:
                to = forced(found, action.strategy).worker_id
            except OutlastError as e:
                raise OutlastError(
                    f"{word} cannot be applied: {e}; or name a worker as action.worker_id"
                ) from None
        ask(client, "move", task_id if to is None else f"{task_id} {to}")
        return _did(task_id, "move", f"it continues on {to or 'another worker'}")
    if not runs and action.modified_task is None and action.strategy in _AS_IT_IS:
        return _did(task_id, "nothing", "it already waits for its next attempt")
    where = f"attempt {found['attempt']} runs on {found['worker']}" if runs else "it waits"
    raise OutlastError(
        f"{word} cannot be applied to task {task_id} while {where}: what follows is decided when"
        " its attempt ends. Move it, cancel it, or submit it with retry_failures and knobs"
    )


def _again(
    client: Client, former: documents.Task, action: RecoveryAction, wait: bool, forced: Forced
) -> Done:
    """Applies an action to a task that has finally failed."""
    task_id, modified, to = former["id"], action.modified_task, action.worker_id
    if modified is None and action.strategy in _MOVES and to is not None:
        requires = {**former["spec"].get("requires", {}), "worker": to}
        modified = {**former["spec"], "requires": requires}
    if modified is None and action.strategy not in _AS_IT_IS:
        word = action.strategy.value
        try:
            modified = forced(former, action.strategy).modified_task
        except OutlastError as e:
            text = f"{word} cannot be applied: {e}; or say how in action.modified_task"
            raise OutlastError(text) from None
    delay = action.delay
    if wait and delay < 0 and action.strategy is RecoveryStrategy.DELAYED_RETRY:
        delay = forced(former, action.strategy).delay
    if wait and delay > 0:
        time.sleep(delay)
    if modified is None:
        client.retry(task_id)
        return _did(task_id, "retry", "it is retried unchanged")
    found = re.fullmatch(r"(.*)-recovery-(\d+)", task_id)
    base, count = (found[1], int(found[2])) if found else (task_id, 0)
    for number in range(count + 1, count + 100):
        try:
            made = client.submit({**modified, "id": f"{base}-recovery-{number}"})
        except Refused as e:
            # Another change of this task has this id.
            if e.status != 409:
                raise
            continue
        return _did(made.id, "submit", f"the changed task is {made.id}")
    raise OutlastError(f"task {task_id} was changed too often; submit it under another id")


def _did(task_id: str, did: Literal["nothing", "move", "retry", "submit"], text: str) -> Done:
    return {"task_id": task_id, "did": did, "text": text}
