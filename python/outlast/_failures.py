"""The coordinator's record of failures, and a manager's own, as they are read."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Optional

from ._recovery import FailureContext, FailureType, RecoveryAction, RecoveryStrategy

#: Tasks whose history is read for a drawing.
MOST_TASKS = 200


@dataclass
class Record:
    """A failure and what was decided about it."""

    context: FailureContext
    action: RecoveryAction
    failure_class: str
    decided_by: str
    outcome: str
    #: As the planner takes it; none if it tells nothing of the machine or the task.
    failure: Optional[dict[str, Any]] = None
    #: The changed task that was submitted for it.
    successor: Optional[str] = None

    @property
    def key(self) -> tuple[str, int]:
        return (self.context.task_id, self.context.attempt)

    def shown(self) -> dict[str, Any]:
        names = ("context", "action", "failure_class", "decided_by", "outcome")
        return {name: getattr(self, name) for name in names}


def state_of(spec: Mapping[str, Any], events: list[dict[str, Any]]) -> dict[str, Any]:
    """How recovery left a task, by its history; as the planner takes it."""
    knobs: dict[str, int] = {}
    tried: list[dict[str, Any]] = []
    avoid: list[str] = []
    of_memory = 0
    own = bool(spec.get("knobs")) or spec.get("max_oom_retries") is not None
    where = {n: end["worker"] or "" for n, end in ends(events).items()}
    for event in events:
        if event["event"] == "retried":
            knobs, tried, avoid, of_memory = {}, [], [], 0
        made = event.get("recovery")
        if event["event"] != "recovery" or not made:
            continue
        for name, value in made.get("knobs", {}).items():
            values = spec.get("knobs", {}).get(name, [])
            if value in values:
                knobs[name] = values.index(value)
        if not decides(event):
            continue
        worker = where.get(event["attempt"], "")
        step = {"class": made["class"], "strategy": made["strategy"], "worker": worker}
        tried.append(step)
        if made["strategy"] == "different_worker" and worker and worker not in avoid:
            avoid.append(worker)
        of_memory += own and made["class"] == "out_of_memory" and made["strategy"] != "escalation"
    return {"knobs": knobs, "begun": True, "tried": tried, "oom_retries": of_memory, "avoid": avoid}


def ends(events: Iterable[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """By attempt: how it ended."""
    over = ("requeued", "succeeded", "failed", "cancelled")
    return {e["attempt"]: e for e in events if e["event"] in over and e["attempt"] > 0}


def decides(event: Mapping[str, Any]) -> bool:
    """Whether this entry of a history is a decision about a failure."""
    made = event.get("recovery")
    return event["event"] == "recovery" and bool(made and made.get("class"))


def outcome(strategy: str, attempt: int, ends: Mapping[int, Mapping[str, Any]]) -> str:
    """Of the attempt after a decision."""
    if strategy == "escalation":
        return "given up"
    later = [n for n in ends if n > attempt]
    if not later:
        return "open"
    return ended(ends[min(later)]["event"])


def ended(word: str) -> str:
    """An outcome, by a task's state or by how an attempt ended."""
    words = {"succeeded": "succeeded", "cancelled": "cancelled"}
    words |= {"failed": "failed again", "requeued": "failed again"}
    return words.get(word, "open")


def evidence(made: Mapping[str, Any]) -> str:
    """From a decision's text, which is ``class (evidence, by "words"): what and why``."""
    text = str(made["text"])
    text = text[len(made["class"]) + 2 :] if text.startswith(f"{made['class']} (") else text
    # The words in it that decided are not part of it.
    return re.sub(r', by "(?:[^"\\]|\\.)*"$', "", text.partition("): ")[0])


def failure_type(word: str) -> FailureType:
    """Of the coordinator's class."""
    from ._outlast import FAILURE_TYPES

    return FailureType[FAILURE_TYPES.get(word, "UNKNOWN")]


def when(text: str) -> datetime.datetime:
    """A time of the API."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def iso(millis: int) -> str:
    """As the API writes it."""
    at = datetime.datetime.fromtimestamp(millis / 1000, datetime.timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def member(worker: Mapping[str, Any]) -> dict[str, Any]:
    """A worker as the planner takes it."""
    there = worker["state"] == "connected" and not worker.get("quarantine")
    return {
        "name": worker["name"],
        "there": there,
        "slots": worker["slots"],
        "capabilities": worker["capabilities"] or {},
        "labels": worker["labels"],
    }


def busy(worker: Mapping[str, Any]) -> float:
    """How full a worker is."""
    return float(worker["held"]) / max(1, worker["slots"])


def _past(failure: Mapping[str, Any]) -> dict[str, Any]:
    """A failure of the API as the planner takes it."""
    return {
        "at": int(when(failure["at"]).timestamp() * 1000),
        "task": failure["task"],
        "epoch": failure["attempt"],
        "task_type": failure["task_type"],
        "worker": failure["worker"],
        "worker_name": failure["worker"],
        "hardware": failure["hardware"],
        "class": failure["class"],
        "text": failure["evidence"],
    }


def _mine(past: list[dict[str, Any]], records: list[Record]) -> list[Record]:
    known = {(f["task"], f["attempt"]) for f in past}
    return [r for r in records if r.failure is not None and r.key not in known]


def others(
    past: list[dict[str, Any]], records: list[Record], but: Optional[tuple[str, int]]
) -> list[dict[str, Any]]:
    """All failures but one, as the planner takes them, oldest first."""
    found = [_past(f) for f in past]
    found += [r.failure for r in _mine(past, records) if r.failure is not None]
    found = [f for f in found if (f["task"], f["epoch"]) != but]
    found.sort(key=lambda f: f["at"])
    return [{**f, "number": n} for n, f in enumerate(found, 1)]


def unknown_to(past: list[dict[str, Any]], records: list[Record]) -> list[dict[str, Any]]:
    """The failures that only callers told of, as the API would show them."""
    return [
        {
            "at": iso(r.failure["at"]),
            "task": r.failure["task"],
            "attempt": r.failure["epoch"],
            "task_type": r.failure["task_type"],
            "worker": r.failure["worker"],
            "hardware": r.failure["hardware"],
            "class": r.failure["class"],
            "failure_type": r.context.error_type.name,
            "evidence": r.failure["text"],
        }
        for r in _mine(past, records)
        if r.failure is not None
    ]


def action_of(task: Mapping[str, Any], event: Mapping[str, Any]) -> RecoveryAction:
    """The decision that this entry of a history is."""
    from ._outlast import recovery_spec

    made, spec = event["recovery"], None
    now = json.loads(recovery_spec(json.dumps(task["spec"]), json.dumps(made.get("knobs", {}))))
    if now != task["spec"] and made["strategy"] != "escalation":
        spec = now
    return RecoveryAction(
        RecoveryStrategy(made["strategy"]),
        delay=made.get("delay_ms", 0) / 1000,
        modified_task=spec,
        message=made["text"],
        hardware_requirements=dict((spec or task["spec"]).get("requires", {})),
    )


def records_of(
    task: Mapping[str, Any],
    events: list[dict[str, Any]],
    past: list[dict[str, Any]],
) -> list[Record]:
    """The coordinator's decisions about a task, by its history and the newest failures."""
    told = {(f["task"], f["attempt"]): f for f in past}
    over = ends(events)
    found: list[Record] = []
    for event in events:
        if not decides(event):
            continue
        made, attempt = event["recovery"], event["attempt"]
        failure = told.get((task["id"], attempt), {})
        context = FailureContext(
            task["id"],
            over.get(attempt, {}).get("worker") or failure.get("worker", ""),
            {"hardware_class": made["hardware"]},
            failure.get("evidence") or evidence(made),
            failure_type(made["class"]),
            when(event["at"]),
            attempt,
            recovery_attempts=len(found),
        )
        came = outcome(made["strategy"], attempt, over)
        action = action_of(task, event)
        found.append(Record(context, action, made["class"], "coordinator", came))
    return found
