"""The coordinator's record of failures, and the one that a manager keeps."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Optional, TypedDict

from . import documents
from ._recovery import FailureContext, FailureType, RecoveryAction, RecoveryStrategy

#: Tasks whose history is read for a drawing.
MOST_TASKS = 200


@dataclass
class Record:
    """A failure and the decision about it."""

    context: FailureContext
    action: RecoveryAction
    failure_class: str
    decided_by: str
    outcome: str
    #: In the planner's form; None if the failure says nothing about the machine or the task.
    failure: Optional[dict[str, Any]] = None
    #: The changed task that was submitted for it.
    successor: Optional[str] = None

    @property
    def key(self) -> tuple[str, int]:
        return (self.context.task_id, self.context.attempt)

    def shown(self) -> Shown:
        return {
            "context": self.context,
            "action": self.action,
            "failure_class": self.failure_class,
            "decided_by": self.decided_by,
            "outcome": self.outcome,
        }


class Shown(TypedDict):
    """Entry of :meth:`outlast.fault_tolerance.RecoveryManager.get_recovery_history`."""

    context: FailureContext
    action: RecoveryAction
    failure_class: str
    decided_by: str
    outcome: str


def state_of(spec: Mapping[str, Any], events: list[documents.HistoryEvent]) -> dict[str, Any]:
    """The recovery state of a task according to its history, in the planner's form."""
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


def ends(events: Iterable[documents.HistoryEvent]) -> dict[int, documents.HistoryEvent]:
    """The end of each attempt, by attempt."""
    over = ("requeued", "succeeded", "failed", "cancelled")
    return {e["attempt"]: e for e in events if e["event"] in over and e["attempt"] > 0}


def decides(event: documents.HistoryEvent) -> bool:
    """Reports whether this entry of a history is a decision about a failure."""
    made = event.get("recovery")
    return event["event"] == "recovery" and bool(made and made.get("class"))


def outcome(strategy: str, attempt: int, ends: Mapping[int, documents.HistoryEvent]) -> str:
    """The outcome of the attempt after a decision."""
    if strategy == "escalation":
        return "given up"
    later = [n for n in ends if n > attempt]
    if not later:
        return "open"
    return ended(ends[min(later)]["event"])


def ended(word: str) -> str:
    """An outcome, derived from a task's state or from the end of an attempt."""
    words = {"succeeded": "succeeded", "cancelled": "cancelled"}
    words |= {"failed": "failed again", "requeued": "failed again"}
    return words.get(word, "open")


def evidence(made: Mapping[str, Any]) -> str:
    """The evidence in a decision's text, which is ``class (evidence, by "words"): action and reason``."""
    text = str(made["text"])
    text = text[len(made["class"]) + 2 :] if text.startswith(f"{made['class']} (") else text
    # The words that decided are not part of the evidence.
    return re.sub(r', by "(?:[^"\\]|\\.)*"$', "", text.partition("): ")[0])


def failure_type(word: str) -> FailureType:
    """The failure type of a class of the coordinator."""
    from ._outlast import FAILURE_TYPES

    return FailureType[FAILURE_TYPES.get(word, "UNKNOWN")]


def when(text: str) -> datetime.datetime:
    """Parses a time of the API."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def iso(millis: int) -> str:
    """Formats a time like the API."""
    at = datetime.datetime.fromtimestamp(millis / 1000, datetime.timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def member(worker: documents.Worker) -> dict[str, Any]:
    """A worker in the planner's form."""
    there = worker["state"] == "connected" and not worker.get("quarantine")
    return {
        "name": worker["name"],
        "there": there,
        "slots": worker["slots"],
        "capabilities": worker["capabilities"] or {},
        "labels": worker["labels"],
    }


def busy(worker: documents.Worker) -> float:
    """The share of a worker's slots that are in use."""
    return float(worker["held"]) / max(1, worker["slots"])


def _past(failure: documents.PastFailure) -> dict[str, Any]:
    """A failure of the API in the planner's form."""
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


def _mine(past: list[documents.PastFailure], records: list[Record]) -> list[Record]:
    known = {(f["task"], f["attempt"]) for f in past}
    return [r for r in records if r.failure is not None and r.key not in known]


def others(
    past: list[documents.PastFailure], records: list[Record], but: Optional[tuple[str, int]]
) -> list[dict[str, Any]]:
    """All failures except one, in the planner's form, oldest first."""
    found = [_past(f) for f in past]
    found += [r.failure for r in _mine(past, records) if r.failure is not None]
    found = [f for f in found if (f["task"], f["epoch"]) != but]
    found.sort(key=lambda f: f["at"])
    return [{**f, "number": n} for n, f in enumerate(found, 1)]


def unknown_to(
    past: list[documents.PastFailure], records: list[Record]
) -> list[documents.PastFailure]:
    """The failures that only callers reported, in the form of the API."""
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


def action_of(task: documents.Task, event: documents.HistoryEvent) -> RecoveryAction:
    """The decision in this entry of a history."""
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
    task: documents.Task,
    events: list[documents.HistoryEvent],
    past: list[documents.PastFailure],
) -> list[Record]:
    """The coordinator's decisions about a task, from its history and the newest failures."""
    told = {(f["task"], f["attempt"]): f for f in past}
    over = ends(events)
    found: list[Record] = []
    for event in events:
        if not decides(event):
            continue
        made, attempt = event["recovery"], event["attempt"]
        failure, end = told.get((task["id"], attempt)), over.get(attempt)
        worker = (end and end["worker"]) or (failure["worker"] if failure else "")
        context = FailureContext(
            task["id"],
            worker,
            {"hardware_class": made["hardware"]},
            (failure and failure["evidence"]) or evidence(made),
            failure_type(made["class"]),
            when(event["at"]),
            attempt,
            recovery_attempts=len(found),
        )
        came = outcome(made["strategy"], attempt, over)
        action = action_of(task, event)
        found.append(Record(context, action, made["class"], "coordinator", came))
    return found
