"""Recovery from failures, with the interface of the replaced system.

The Rust core makes the decisions. For a task that a coordinator has, the coordinator decides when an
attempt ends, and :meth:`RecoveryManager.handle_failure` returns its decision. Failures that only the
caller knows of are passed to the same planner, with the coordinator's table and workers; only the
manager keeps them, for as long as it exists.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import threading
import time
import warnings
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Optional, Union

from . import _applying, _data, _failures, _planning, _reports, documents
from ._recovery import (
    DEFAULTS,
    FailureContext,
    FailureType,
    RecoveryAction,
    RecoveryStrategy,
    action_of,
)
from .client import Client
from .errors import ConfigurationError, NotFound, OutlastError, Refused

__all__ = [
    "DEFAULTS",
    "FailureContext",
    "FailureType",
    "RecoveryAction",
    "RecoveryManager",
    "RecoveryStrategy",
    "create_recovery_manager",
]

log = logging.getLogger("outlast.fault_tolerance")

#: Values that :meth:`RecoveryManager.handle_failure` accepts.
ErrorInfo = Union[Mapping[str, Any], BaseException, FailureContext, str]
#: Values that :meth:`RecoveryManager.apply_recovery_action` accepts.
ActionLike = Union[RecoveryAction, RecoveryStrategy, Mapping[str, Any], str]


def create_recovery_manager(
    coordinator: Union[Client, str],
    db_manager: Any = None,
    scheduler: Any = None,
    enable_ml: bool = False,
) -> RecoveryManager:
    """A recovery manager for this coordinator.

    :param coordinator: a :class:`~outlast.Client` with a key of role submit (operate, to quarantine
        and release workers), or a coordinator's address.
    :param db_manager: has no effect and causes a warning: the coordinator keeps the record.
    :param scheduler: has no effect and causes a warning: the coordinator places tasks.
    :param enable_ml: has no effect and causes a warning: decisions follow a table.
    :raises ConfigurationError: if ``coordinator`` is neither. No connection is opened yet.
    """
    return RecoveryManager(coordinator, db_manager, scheduler, enable_ml)


@dataclass
class _Own:
    """The manager's record of a task that it passed to the planner."""

    state: dict[str, Any] = field(default_factory=dict)
    retries: int = 0
    #: The newest failure that was passed to the planner.
    attempt: int = 0
    #: For a task that the coordinator does not know: the caller's last description, and its original
    #: knobs.
    task: Any = None
    knobs: dict[str, Any] = field(default_factory=dict)


class RecoveryManager:
    """See :func:`create_recovery_manager`. Safe to use from several threads. Methods raise
    :class:`~outlast.Unreachable` if the coordinator does not answer within the client's ``patience``,
    and :class:`~outlast.Refused` if the key does not allow the request."""

    def __init__(
        self,
        coordinator: Union[Client, str],
        db_manager: Any = None,
        scheduler: Any = None,
        enable_ml: bool = False,
    ) -> None:
        if isinstance(coordinator, str):
            coordinator = Client(coordinator)
        if not isinstance(coordinator, Client):
            kind = type(coordinator).__name__
            raise ConfigurationError(
                f"coordinator must be an outlast.Client or an address, not {kind}"
            )
        for given, text in (
            (db_manager is not None, "db_manager has no effect: the coordinator keeps the record"),
            (scheduler is not None, "scheduler has no effect: the coordinator places tasks"),
            (enable_ml, "enable_ml has no effect: decisions follow the coordinator's table"),
        ):
            if given:
                warnings.warn(text, stacklevel=3)
        self.client = coordinator
        self._lock = threading.Lock()
        size = DEFAULTS["failure_history_size"]
        #: Failures that were passed to the planner, oldest first.
        self._records: deque[_failures.Record] = deque(maxlen=size)
        self._own: OrderedDict[str, _Own] = OrderedDict()
        #: Per task, the attempts whose decision was returned.
        self._told: OrderedDict[str, set[int]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<RecoveryManager of {self.client.url}>"

    def _ask(self, what: str, subject: Optional[str] = None) -> Any:
        return _applying.ask(self.client, what, subject)

    def _task(self, task_id: str) -> Optional[documents.Task]:
        return _applying.task(self.client, task_id)

    def recovery_table(self) -> documents.RecoveryTable:
        """The coordinator's recovery table: the document of ``GET /api/v1/recovery``."""
        return self._ask("table")

    def handle_failure(
        self, task_id: str, worker_id: Optional[str], error_info: ErrorInfo
    ) -> RecoveryAction:
        """Decides what to do about a failure.

        If the coordinator has the task and has decided on the attempt's end, that decision is
        returned, which the coordinator carries out by itself. Otherwise the planner decides, and nothing is
        done until :meth:`apply_recovery_action`.

        :param task_id: id of a task of the coordinator, or any other.
        :param worker_id: name of the worker where it failed; None if unknown.
        :param error_info: an exception, a text, or a dict with these optional fields: ``message`` (or
            ``error_message``, ``error``), ``type`` (a class of exceptions, or a
            :class:`FailureType`, its name or its value in any case, which determines the class whatever
            the texts contain), ``traceback`` (or ``stacktrace``), ``stderr``, ``stdout``,
            ``exit_code``, ``signal``, ``cause`` (a cause of task histories, such as ``timed_out``),
            ``attempt`` (its number; default: the newest that ended on that worker), ``hardware`` (such as
            ``cuda``), ``checkpoint_data``, ``context``, ``requirements``, ``args`` (which may name a
            device that the task requests). For a task that the coordinator does not know also
            ``task``: a task in the form of a submission, or a config of your own, whose ``knobs`` list what
            may be changed (``{"batch_size": [64, 32]}``), with ``max_retries`` and ``requires``. If it names a
            device, such as ``device: cuda``, possibly in its ``args`` or
            ``requirements``, another worker must have that device.
        :raises InvalidData: if a report is invalid.
        :raises Refused: (409) if the task has succeeded or was cancelled.
        """
        report = _reports.report(error_info)
        worker = worker_id or ""
        task = self._task(task_id)
        events: list[documents.HistoryEvent] = []
        if task is not None:
            events = self.client.history(task_id)
            decided = self._decided(task, events, worker, report.attempt)
            if decided is not None:
                log.info("task %s: %s", task_id, decided.message)
                return decided
            if task["state"] in ("succeeded", "cancelled"):
                text = f"task {task_id} is {task['state']}: there is nothing to recover"
                raise Refused(text, 409)
        action = self._plan(task_id, task, events, worker, report)
        log.warning("task %s failed on %s: %s", task_id, worker or "?", action.message)
        return action

    def _decided(
        self,
        task: documents.Task,
        events: list[documents.HistoryEvent],
        worker: str,
        attempt: Optional[int],
    ) -> Optional[RecoveryAction]:
        ends = _failures.ends(events)
        if attempt is None:
            there = [n for n, end in ends.items() if not worker or end["worker"] == worker]
            attempt = max(there or ends, default=0)
            with self._lock:
                told = not there or attempt in self._told.get(task["id"], ())
            running = task["state"] == "assigned" and task["worker"] == (worker or task["worker"])
            if told and running:
                # It must be the attempt that runs there: its end is not known yet.
                return None
        for event in reversed(events):
            if event["attempt"] == attempt and _failures.decides(event):
                with self._lock:
                    _bounded(self._told, task["id"], set()).add(attempt)
                action = _failures.action_of(task, event)
                if action.strategy is not RecoveryStrategy.ESCALATION:
                    action.checkpoint_data = self._checkpoint(task["id"])
                if task["attempt"] > attempt:
                    action.worker_id = task["worker"]
                return action
        return None

    def _checkpoint(self, task_id: str) -> Optional[documents.Checkpoint]:
        kept = [c for c in self.client.checkpoints(task_id) if c["kept"] and not c.get("artifact")]
        return kept[-1] if kept else None

    def _plan(
        self,
        task_id: str,
        task: Optional[documents.Task],
        events: list[documents.HistoryEvent],
        worker: str,
        report: _reports.Report,
    ) -> RecoveryAction:
        table, members = self._ask("table"), self.client.workers()
        past = self._ask("patterns")["failures"]
        with self._lock:
            known = self._own.get(task_id)
            own = dataclasses.replace(known) if known else _Own()
        if task is not None:
            spec, config = task["spec"], None
        else:
            own.task = own.task if report.task is None else report.task
            spec, config = _reports.spec_of(own.task)
            spec["knobs"], own.state = _reports.ladders(spec, own.knobs, own.state)
            own.knobs = spec["knobs"]
        if task is not None:
            own = self._as_decided(task, events, known)
        attempt = report.attempt or (task["attempt"] if task else own.attempt + 1)
        seen = report.seen
        if task is not None and task["state"] == "failed" and task["attempt"] == attempt:
            end = _data.read_end(self.client._raw.result(task_id, 0) or "{}")
            seen = _reports.with_result(seen, end)
            seen["cause"] = seen["cause"] or task["cause"]
        with self._lock:
            records = list(self._records)
        now = time.time()
        failures = _failures.others(past, records, (task_id, attempt))
        subject = _planning.Subject(
            task_id, attempt, spec, config, own.state, own.retries, worker, report.hardware,
            tuple(report.asked),
        )  # fmt: skip
        said = report.failure_type.name if report.failure_type else None
        answer = _planning.answer(subject, table, members, failures, seen, said)
        checkpoint = report.checkpoint
        if task is not None and checkpoint is None:
            checkpoint = self._checkpoint(task_id)
        action = _planning.action(subject, answer, checkpoint)
        here = [dict(m["capabilities"]) for m in members if m["name"] == worker]
        context = FailureContext(
            task_id,
            worker,
            {**(here[0] if here else {}), "hardware_class": answer["hardware"]},
            answer["evidence"],
            FailureType[answer["failure_type"]],
            datetime.datetime.fromtimestamp(now, datetime.timezone.utc),
            attempt,
            report.stacktrace,
            self.client.state(task_id).get("state") or {} if task else report.task_state,
            len(own.state.get("tried", ())),
        )
        record = _failures.Record(context, action, answer["class"], "caller", "open")
        record.failure = answer["failure"]
        # The coordinator will decide on a running attempt, and record that.
        if task is None or task["state"] == "failed":
            own.state, own.retries, own.attempt = answer["state"], answer["retries"], attempt
            with self._lock:
                self._records.append(record)
                self._own.pop(task_id, None)
                _bounded(self._own, task_id, own)
        return action

    def _as_decided(
        self,
        task: documents.Task,
        events: list[documents.HistoryEvent],
        known: Optional[_Own],
    ) -> _Own:
        """The recovery state of a task of the coordinator: according to its history, unless this manager has
        decided since."""
        decided = [e["attempt"] for e in events if _failures.decides(e)]
        if known is None or max(decided, default=0) > known.attempt:
            return _Own(_failures.state_of(task["spec"], events), task["retries"])
        return dataclasses.replace(known)

    def _forced(self, task: documents.Task, strategy: RecoveryStrategy) -> RecoveryAction:
        """An action with this strategy for a task of the coordinator, if only the strategy is given.

        :raises OutlastError: if it does not apply; the text says why.
        """
        task_id = task["id"]
        with self._lock:
            known = self._own.get(task_id)
        own = self._as_decided(task, self.client.history(task_id), known)
        subject = _planning.Subject(
            task_id, task["attempt"], task["spec"], None, own.state, own.retries,
            task["worker"] or "",
        )  # fmt: skip
        seen = _reports.report({}).seen
        table, members = self._ask("table"), self.client.workers()
        answer = _planning.answer(subject, table, members, [], seen, strategy=strategy)
        if "why_not" in answer:
            raise OutlastError(str(answer["why_not"]))
        answer["message"] = answer["reason"]
        return _planning.action(subject, answer, self._checkpoint(task_id))

    def get_recovery_history(self, task_id: str) -> list[_failures.Shown]:
        """The decisions about a task's failures, oldest first: from the coordinator's durable record and from
        this manager. Each has ``context`` (:class:`FailureContext`), ``action``
        (:class:`RecoveryAction`), ``failure_class`` (the coordinator's name of the class),
        ``decided_by`` (``coordinator`` or ``caller``) and ``outcome`` of the next attempt: ``succeeded``,
        ``failed again``, ``cancelled``, ``given up`` (there was none) or ``open``.
        """
        task = self._task(task_id)
        found: list[_failures.Record] = []
        events: list[documents.HistoryEvent] = []
        if task is not None:
            past, events = self._ask("patterns")["failures"], self.client.history(task_id)
            found = _failures.records_of(task, events, past)
        found += self._mine(task_id, events)
        found.sort(key=lambda r: r.context.timestamp)
        return [r.shown() for r in found]

    def _mine(
        self, task_id: str, events: list[documents.HistoryEvent]
    ) -> list[_failures.Record]:
        """The decisions of this manager about a task, with their outcomes."""
        with self._lock:
            own = [r for r in self._records if r.context.task_id == task_id]
        ends = _failures.ends(events)
        for n, record in enumerate(own):
            strategy, attempt = record.action.strategy.value, record.context.attempt
            record.outcome = _failures.outcome(strategy, attempt, ends)
            if record.successor is not None:
                other = self._task(record.successor)
                record.outcome = _failures.ended(other["state"] if other else "")
            elif record.outcome == "open" and n + 1 < len(own):
                record.outcome = "failed again"
        return own

    def get_failure_patterns(self) -> documents.RecoveryPatterns:
        """Repeated failures, most frequent first (``patterns``: ``kind``, ``subject``,
        ``class``, ``count``, ``tasks``, ``workers``, ``first``, ``last``, ``evidence``), the
        ``quarantined`` workers, the ``learned`` knob values, and the newest ``failures``: the
        document of ``GET /api/v1/recovery/patterns``. Failures that were only reported to this manager
        are included."""
        from ._outlast import recovery_patterns

        document: documents.RecoveryPatterns = self._ask("patterns")
        with self._lock:
            records = list(self._records)
        mine = _failures.unknown_to(document["failures"], records)
        if not mine:
            return document
        rules = self._ask("table")["patterns"]
        both = _failures.others(document["failures"], records, None)
        lookback = {"failures": both, "rules": rules, "now": int(time.time() * 1000)}
        found = json.loads(recovery_patterns(json.dumps(lookback)))
        for pattern in found:
            for name in ("first", "last"):
                pattern[name] = _failures.iso(pattern[name])
        shown = sorted(document["failures"] + mine, key=lambda f: f["at"], reverse=True)
        return {**document, "patterns": found, "failures": shown}

    def create_visualization(self, output_dir: Union[str, Path]) -> list[str]:
        """Draws the failure history into ``output_dir`` (created if missing): failures by worker, actions and
        their outcomes, over time. Writes one self-contained HTML file.

        :returns: the paths written.
        :raises OSError: if the folder cannot be written.
        """
        from . import _drawing

        document = self.get_failure_patterns()
        records: list[_failures.Record] = []
        ids = list(dict.fromkeys(f["task"] for f in document["failures"]))
        for task_id in ids[: _failures.MOST_TASKS]:
            task = self._task(task_id)
            events = self.client.history(task_id) if task is not None else []
            if task is not None:
                records += _failures.records_of(task, events, document["failures"])
            records += self._mine(task_id, events)
        page = _drawing.page(self.client.url, document, records)
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "failure_history.html"
        path.write_text(page, encoding="utf-8")
        return [str(path)]

    def quarantine_worker(self, worker_id: str) -> None:
        """Quarantines a worker: it gets no work except a probe after a while.

        :raises NotFound: if there is no such worker.
        """
        self._ask("quarantine", worker_id)

    def release_worker(self, worker_id: str) -> None:
        """Ends the quarantine of a worker; its previous failures no longer count.

        :raises NotFound: if there is no such worker.
        """
        self._ask("release", worker_id)

    def apply_recovery_action(
        self, task_id: str, action: ActionLike, *, wait: bool = True
    ) -> _applying.Done:
        """Carries out an action through the coordinator.

        - An action that the coordinator decided on is carried out by the coordinator: nothing is done here.
        - A task that waits or runs is moved to another worker.
        - A failed task is retried with ``retry``, after ``action.delay`` seconds, for which
          this method waits. If the action changes the task (its knobs, or its requirements), the changed
          task is submitted under a new id, ``TASK-recovery-1``, and starts without the checkpoints
          of the original. Tasks with ``retry_failures`` and ``knobs`` need neither.
        - An escalation is logged for an operator.

        :param action: the result of :meth:`handle_failure`, or an action of your own. A strategy (a
            :class:`RecoveryStrategy` or its name) or a dict with the fields of
            :class:`RecoveryAction` is accepted, too: the planner fills in omitted fields, such as
            the worker, the value of a knob, and the delay.
        :param wait: False retries without the delay.
        :returns: ``task_id`` (to use from then on), ``did`` (``nothing``, ``retry``, ``move`` or
            ``submit``) and ``text``.
        :raises InvalidData: if it is not a valid action.
        :raises NotFound: if the coordinator has no such task.
        :raises OutlastError: if it cannot be applied; the text says why.
        """
        done = _applying.apply(self.client, task_id, action_of(action), wait, self._forced)
        if done["did"] == "submit":
            with self._lock:
                for record in self._records:
                    if record.action is action:
                        record.successor = done["task_id"]
                known = self._own.get(task_id)
                if known is not None:
                    # It starts with its current knobs; values that were tried stay tried.
                    state = {k: v for k, v in known.state.items() if k != "knobs"}
                    _bounded(self._own, done["task_id"], _Own(state, known.retries))
        return done


def _bounded(known: OrderedDict[str, Any], key: str, new: Any) -> Any:
    """The value of the key, created if missing; the oldest values are removed."""
    found = known.setdefault(key, new)
    known.move_to_end(key)
    while len(known) > DEFAULTS["failure_history_size"]:
        known.popitem(last=False)
    return found
