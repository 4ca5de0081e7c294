"""Recovery by the names of the replaced system, with tasks that really fail."""

import dataclasses
import html.parser
import re

import outlast
import pytest
from outlast import fault_tolerance as ft
from outlast.fault_tolerance import FailureType, RecoveryAction, RecoveryStrategy

from conftest import until
from failing import CUDA, OOM, Fleet, fails, one_worker


@pytest.fixture
def fleet(processes, tmp_path):
    return one_worker(processes, tmp_path)


def decisions(fleet, task_id):
    events = fleet.client.history(task_id)
    return [e for e in events if e["event"] == "recovery" and e["recovery"].get("class")]


def test_the_names_are_those_of_the_replaced_system(fleet):
    assert [t.name for t in FailureType] == (
        "HARDWARE_ERROR SOFTWARE_ERROR RESOURCE_EXHAUSTION TIMEOUT COMMUNICATION_ERROR"
        " BROWSER_FAILURE TRANSIENT_ERROR PERSISTENT_ERROR WORKER_CRASH WORKER_DISCONNECTION"
        " COORDINATOR_ERROR UNKNOWN"
    ).split()
    assert [s.name for s in RecoveryStrategy] == (
        "IMMEDIATE_RETRY DELAYED_RETRY DIFFERENT_WORKER DIFFERENT_HARDWARE_CLASS"
        " REDUCED_PRECISION REDUCED_BATCH_SIZE SIMPLIFIED_MODEL FALLBACK_CPU BROWSER_RESTART"
        " SKIP_CHECKPOINTING RESET_WORKER_STATE ESCALATION"
    ).split()
    assert [f.name for f in dataclasses.fields(ft.FailureContext)] == (
        "task_id worker_id hardware_profile error_message error_type timestamp attempt stacktrace"
        " task_state recovery_attempts"
    ).split()
    assert [f.name for f in dataclasses.fields(RecoveryAction)] == (
        "strategy worker_id delay modified_task checkpoint_data priority_adjustment message"
        " hardware_requirements"
    ).split()
    # Every class and every rung of the core has a name here, and the defaults are its own.
    from outlast._outlast import FAILURE_TYPES

    assert {FailureType[name] for name in FAILURE_TYPES.values()}
    table, defaults = fleet.manager.recovery_table(), ft.DEFAULTS
    for rungs in [*table["errors"].values(), *table["hardware"].values()]:
        assert {RecoveryStrategy(rung) for rung in rungs}
    assert table["base_delay"] == defaults["base_delay"]
    assert table["max_delay"] == defaults["max_delay"]
    assert table["jitter"] == defaults["jitter_factor"]
    assert table["patterns"]["history"] == defaults["failure_history_size"]
    assert table["patterns"]["count"] == defaults["pattern_threshold"]
    assert table["patterns"]["window"] == defaults["pattern_window"]


def test_what_the_coordinator_decided_is_told_and_not_decided_again(fleet):
    line = f"test {{knob.batch_size}} -le 16 || {{ {fails(OOM)}; }}"
    fleet.run("oom", line, knobs={"batch_size": [64, 32, 16]})
    assert fleet.client.wait("oom", 120)["state"] == "succeeded"
    made = decisions(fleet, "oom")
    assert len(made) == 2
    for n, knobs in ((1, [32, 16]), (2, [16])):
        action = fleet.manager.handle_failure("oom", "w1", {"attempt": n, "message": "no matter"})
        assert action.strategy is RecoveryStrategy.REDUCED_BATCH_SIZE
        assert action.modified_task["knobs"] == {"batch_size": knobs}
        assert action.message == made[n - 1]["recovery"]["text"]
        assert action.worker_id == "w1" and action.priority_adjustment == 0
    assert decisions(fleet, "oom") == made
    with pytest.raises(outlast.OutlastError, match="reduced_batch_size cannot be applied: task oom"):
        fleet.manager.apply_recovery_action("oom", action)
    with pytest.raises(outlast.Refused, match="is succeeded: there is nothing to recover"):
        fleet.manager.handle_failure("oom", "w1", {"attempt": 3})
    first, second = fleet.manager.get_recovery_history("oom")
    assert (first["outcome"], second["outcome"]) == ("failed again", "succeeded")
    assert first["decided_by"] == "coordinator" and first["failure_class"] == "out_of_memory"
    assert first["context"].error_type is FailureType.RESOURCE_EXHAUSTION
    assert first["context"].error_message == f'stderr: "{OOM}"'
    assert first["context"].hardware_profile == {"hardware_class": "cpu"}
    assert (second["context"].worker_id, second["context"].recovery_attempts) == ("w1", 1)


def test_a_decision_that_waits_is_left_to_the_coordinator(fleet):
    fleet.run("cuda", fails(CUDA), retry_failures=True, recovery={"base_delay": 40, "jitter": 0})
    until(lambda: decisions(fleet, "cuda"))
    action = fleet.manager.handle_failure("cuda", "w1", CUDA)
    assert (action.strategy, action.delay) == (RecoveryStrategy.DELAYED_RETRY, 40.0)
    assert action.worker_id is None and action.modified_task is None
    assert fleet.manager.handle_failure("cuda", "w1", CUDA) == action
    done = fleet.manager.apply_recovery_action("cuda", action)
    assert (done["did"], done["task_id"]) == ("nothing", "cuda")
    assert [e["outcome"] for e in fleet.manager.get_recovery_history("cuda")] == ["open"]


def test_the_record_survives_the_coordinator(fleet):
    fleet.failed("oom", fails(OOM), knobs={"batch_size": [2, 1]}, max_oom_retries=1)
    before = fleet.manager.get_recovery_history("oom")
    assert [e["outcome"] for e in before] == ["failed again", "given up"]
    assert before[1]["action"].strategy is RecoveryStrategy.ESCALATION
    fleet.coordinator.kill()
    fleet.coordinator.start()
    # Another manager knows the same.
    assert ft.create_recovery_manager(fleet.coordinator.url).get_recovery_history("oom") == before
    again = fleet.manager.handle_failure("oom", None, "x")
    assert again.strategy is RecoveryStrategy.ESCALATION
    assert "max_oom_retries is 1" in again.message


def test_a_failure_that_is_final_is_planned_and_applied(fleet):
    line = f'test "$MACHINE" = good || {{ {fails(CUDA)}; }}'
    fleet.failed("t", line)
    manager = fleet.manager
    # The evidence is the coordinator's; the caller need not know any.
    first = manager.handle_failure("t", "w1", {})
    assert first.strategy is RecoveryStrategy.DELAYED_RETRY and 1.6 <= first.delay <= 2.4
    assert CUDA in first.message and first.message.startswith("device (stderr")
    assert manager.apply_recovery_action("t", first, wait=False)["did"] == "retry"
    until(lambda: fleet.client.info("t")["attempt"] == 2)
    assert fleet.client.wait("t", 120)["state"] == "failed"
    # Nobody else is there yet.
    fleet.worker("w2", MACHINE="good")
    second = manager.handle_failure("t", "w1", {})
    assert (second.strategy, second.worker_id) == (RecoveryStrategy.DIFFERENT_WORKER, "w2")
    assert second.hardware_requirements == {"worker": "!=w1"}
    done = manager.apply_recovery_action("t", second)
    assert (done["did"], done["task_id"]) == ("submit", "t-recovery-1")
    end = fleet.client.wait("t-recovery-1", 120)
    assert (end["state"], end["worker"]) == ("succeeded", "w2")
    # The same again is the same task.
    assert manager.apply_recovery_action("t", second)["task_id"] == "t-recovery-1"
    told = manager.get_recovery_history("t")
    assert [e["outcome"] for e in told] == ["failed again", "succeeded"]
    assert [e["decided_by"] for e in told] == ["caller", "caller"]
    # The coordinator has noted these failures; they count once.
    found = manager.get_failure_patterns()["failures"]
    assert [(f["task"], f["attempt"]) for f in found] == [("t", 2), ("t", 1)]


def test_knobs_are_lowered_by_a_task_of_its_own(fleet):
    line = f"test {{knob.batch_size}} -le 8 || {{ {fails(OOM)}; }}"
    fleet.failed("t", line, knobs={"batch_size": [16, 8]}, max_oom_retries=0)
    action = fleet.manager.handle_failure("t", "w1", {})
    assert action.strategy is RecoveryStrategy.ESCALATION  # max_oom_retries is 0
    changed = RecoveryAction(
        RecoveryStrategy.REDUCED_BATCH_SIZE,
        modified_task={"shell": line, "knobs": {"batch_size": [8]}},
    )
    done = fleet.manager.apply_recovery_action("t", changed)
    assert fleet.client.wait(done["task_id"], 120)["state"] == "succeeded"
    # Another change gets the next id.
    other = dataclasses.replace(changed, modified_task={"shell": "true"})
    assert fleet.manager.apply_recovery_action("t", other)["task_id"] == "t-recovery-2"


def test_a_failure_of_another_program_goes_down_the_ladder(fleet):
    fleet.worker("w2", "--capability", 'hardware=["cpu", "cuda"]')
    manager, tried = fleet.manager, []
    config = {
        "model": "m",
        "batch_size": 64,
        "device": "cuda",
        "knobs": {"batch_size": [64, 32], "precision": ["fp32", "fp16"], "device": ["cuda", "cpu"]},
    }
    while not tried or tried[-1] is not RecoveryStrategy.ESCALATION:
        try:
            raise MemoryError("no room for a batch")
        except MemoryError as e:
            report = {"type": e, "message": str(e), "task": config, "checkpoint_data": {"epoch": 3}}
            action = manager.handle_failure("mine", "gone", report)
        tried.append(action.strategy)
        assert action.checkpoint_data == {"epoch": 3}
        if action.modified_task is not None:
            config = action.modified_task
        assert len(tried) < 20
    assert [s.value for s in tried] == [
        "reduced_batch_size", "reduced_precision", "different_worker", "fallback_cpu", "escalation",
    ]  # fmt: skip
    assert (config["batch_size"], config["precision"], config["device"]) == (32, "fp16", "cpu")
    assert config["model"] == "m"
    assert "tried: reduced_batch_size, reduced_precision" in action.message
    history = manager.get_recovery_history("mine")
    assert [e["context"].attempt for e in history] == [1, 2, 3, 4, 5]
    assert [e["outcome"] for e in history] == ["failed again"] * 4 + ["given up"]
    assert history[0]["context"].hardware_profile["hardware_class"] == "gpu"
    with pytest.raises(outlast.NotFound, match="has no task mine"):
        manager.apply_recovery_action("mine", RecoveryAction(RecoveryStrategy.DELAYED_RETRY))


def test_a_task_need_be_described_only_once(fleet):
    task = {"command": ["train"], "knobs": {"batch_size": [64, 32, 16]}}
    first = fleet.manager.handle_failure("mine", None, {"message": OOM, "task": task})
    assert first.modified_task == {"command": ["train"], "knobs": {"batch_size": [32, 16]}}
    second = fleet.manager.handle_failure("mine", None, OOM)
    assert second.modified_task["knobs"] == {"batch_size": [16]}
    # Another ladder starts from its first rung.
    task["knobs"] = {"batch_size": [8, 4, 2]}
    third = fleet.manager.handle_failure("mine", None, {"message": OOM, "task": task})
    assert third.modified_task["knobs"] == {"batch_size": [4, 2]}


def test_retries_are_counted(fleet):
    fleet.worker("w2")
    report = {"stderr": CUDA, "task": {"max_retries": 3}, "hardware": "cuda:0"}
    made = [fleet.manager.handle_failure("mine", "w1", report) for _ in range(4)]
    assert [a.strategy.value for a in made[:2]] == ["delayed_retry", "different_worker"]
    assert made[1].worker_id == "w2"
    assert made[3].strategy is RecoveryStrategy.ESCALATION
    assert "max_retries is 3" in made[3].message


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (OOM, "RESOURCE_EXHAUSTION"),
        ({"stderr": CUDA, "exit_code": 1}, "HARDWARE_ERROR"),
        ({"exit_code": 124}, "TIMEOUT"),
        ({"exit_code": 137, "message": "exit code 137"}, "UNKNOWN"),
        ({"signal": 11, "message": "killed by signal 11"}, "SOFTWARE_ERROR"),
        ({"cause": "timed_out", "message": "60 s are over"}, "TIMEOUT"),
        ({"type": FailureType.WORKER_CRASH}, "WORKER_CRASH"),
        ({"type": "worker_disconnection"}, "WORKER_DISCONNECTION"),
        ({"error": "WebGL: CONTEXT_LOST_WEBGL: loseContext: context lost"}, "BROWSER_FAILURE"),
        ({"traceback": ["Traceback (most recent call last):\n", "KeyError: 'x'\n"]}, "SOFTWARE_ERROR"),
        (ConnectionRefusedError(111, "Connection refused"), "COMMUNICATION_ERROR"),
        ({"type": ValueError, "message": "bad shape"}, "SOFTWARE_ERROR"),
        ({}, "UNKNOWN"),
        (ft.FailureContext("x", "w1", error_message=OOM), "RESOURCE_EXHAUSTION"),
    ],
)
def test_reports_of_all_kinds_are_classified(shared, report, expected):
    manager = ft.create_recovery_manager(shared.url)
    manager.handle_failure("one", "nobody", report)
    (told,) = manager.get_recovery_history("one")
    assert told["context"].error_type.name == expected


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (7, "must be a dict"),
        ({"exit_code": "x"}, "exit_code must be a whole number"),
        ({"attempt": 0}, "attempt must be a whole number from 1 on"),
        ({"cause": "tired"}, 'cause: "tired" is none'),
        ({"task": 3}, "task must be a dict"),
        ({"task": {"knobs": {"batch_size": []}}}, "knobs"),
    ],
)
def test_reports_that_make_no_sense_are_refused(shared, report, text):
    manager = ft.create_recovery_manager(shared.url)
    with pytest.raises(outlast.InvalidData, match=text):
        manager.handle_failure("one", "nobody", report)
    assert manager.get_recovery_history("one") == []


def test_a_pattern_changes_what_is_tried(fleet):
    fleet.worker("w2")
    manager = fleet.manager
    # One that the coordinator knows of, and two that only this manager does.
    fleet.failed("known", fails(CUDA), requires={"worker": "w1"})
    assert manager.handle_failure("a", "w1", CUDA).strategy is RecoveryStrategy.DELAYED_RETRY
    last = manager.handle_failure("b", "w1", CUDA)
    assert (last.strategy, last.worker_id) == (RecoveryStrategy.DIFFERENT_WORKER, "w2")
    for text in (
        f'device (its message: "{CUDA}", by "CUDA error"): another worker than w1 gets it',
        "not delayed_retry: 3 device failures of 3 tasks on w1",
        "3 device failures of 3 tasks on 1 worker within 60 min, a pattern (",
        "worker w1: 3 failures of 3 tasks on 1 worker",
    ):
        assert text in last.message
    assert manager.handle_failure("c", "w2", CUDA).strategy is not RecoveryStrategy.DIFFERENT_WORKER
    found = manager.get_failure_patterns()
    here = [p for p in found["patterns"] if p["kind"] == "worker"]
    assert [(p["subject"], p["class"], p["count"], p["tasks"]) for p in here] == [("w1", "device", 3, 3)]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:]{8}\.\d{3}Z", here[0]["last"])
    assert {f["task"] for f in found["failures"]} == {"known", "a", "b", "c"}
    # Another manager received no reports.
    assert ft.create_recovery_manager(fleet.client).get_failure_patterns()["patterns"] == []


def test_the_coordinators_own_table_holds(processes, tmp_path):
    table = tmp_path / "table.toml"
    table.write_text('rules = [{pattern = "flux", class = "device"}]\n[errors]\ndevice = ["escalation"]\n')
    fleet = Fleet(processes, tmp_path, "--recovery", table)
    action = fleet.manager.handle_failure("t", "w1", "the flux is off")
    assert action.strategy is RecoveryStrategy.ESCALATION
    assert "the table says so" in action.message


def test_what_runs_is_moved_and_else_left_alone(fleet):
    fleet.run("long", "sleep 60")
    until(lambda: fleet.client.info("long")["started_at"])
    manager = fleet.manager
    ahead = manager.handle_failure("long", "w1", CUDA)
    assert ahead.strategy is RecoveryStrategy.DELAYED_RETRY
    assert manager.get_recovery_history("long") == []  # the coordinator will decide
    with pytest.raises(outlast.OutlastError, match="attempt 1 runs on w1: what follows is decided"):
        manager.apply_recovery_action("long", ahead)
    fleet.worker("w2")
    there = RecoveryAction(RecoveryStrategy.DIFFERENT_WORKER, worker_id="w2")
    assert manager.apply_recovery_action("long", there)["did"] == "move"
    until(lambda: fleet.client.info("long")["worker"] == "w2")
    # What ended on the former worker is no news, and what runs here has not ended.
    assert manager.handle_failure("long", "w2", OOM).message.startswith("out_of_memory")
    fleet.client.cancel("long")
    assert fleet.client.wait("long", 120)["state"] == "cancelled"
    with pytest.raises(outlast.OutlastError, match="is cancelled"):
        manager.apply_recovery_action("long", there)


def test_what_nobody_offers_says_so(fleet, caplog):
    fleet.failed("t", "exit 3")
    apply = fleet.manager.apply_recovery_action
    for strategy in (RecoveryStrategy.SKIP_CHECKPOINTING, RecoveryStrategy.RESET_WORKER_STATE):
        with pytest.raises(outlast.OutlastError, match=f"{strategy.value} cannot be applied: "):
            apply("t", RecoveryAction(strategy))
    for wrong, text in (
        (7, "must be a RecoveryAction"),
        (None, "must be a RecoveryAction"),
        ("retry_harder", "'retry_harder' is not a strategy; strategies are immediate_retry, "),
        ({"worker_id": "w1"}, "the action has no valid strategy"),
        ({"strategy": "delayed_retry", "dealy": 3}, "unknown fields of an action: dealy"),
        ({"strategy": "delayed_retry", "delay": "soon"}, "delay must be in seconds"),
        ({"strategy": "fallback_cpu", "modified_task": 3}, "modified_task must be a dict"),
    ):
        with pytest.raises(outlast.InvalidData, match=text):
            apply("t", wrong)
    for strategy in (RecoveryStrategy.FALLBACK_CPU, RecoveryStrategy.DIFFERENT_WORKER):
        with pytest.raises(outlast.OutlastError, match="say how in action.modified_task"):
            apply("t", RecoveryAction(strategy))
    there = apply("t", RecoveryAction(RecoveryStrategy.DIFFERENT_WORKER, worker_id="w1"))
    assert fleet.client.info(there["task_id"])["spec"]["requires"] == {"worker": "w1"}
    done = apply("t", RecoveryAction(RecoveryStrategy.ESCALATION, message="all is spent"))
    assert done["did"] == "nothing" and fleet.client.info("t")["state"] == "failed"
    assert "task t needs an operator: all is spent" in caplog.text
    fleet.manager.quarantine_worker("w1")
    (out,) = fleet.manager.get_failure_patterns()["quarantined"]
    assert (out["worker"], out["state"]) == ("w1", "quarantined")
    fleet.manager.release_worker("w1")
    assert fleet.manager.get_failure_patterns()["quarantined"] == []
    with pytest.raises(outlast.NotFound):
        fleet.manager.release_worker("nobody")


def test_what_has_no_effect_warns(shared):
    with pytest.warns(UserWarning) as told:
        ft.create_recovery_manager(shared.url, db_manager=1, scheduler=2, enable_ml=True)
    assert [str(w.message).partition(" ")[0] for w in told] == ["db_manager", "scheduler", "enable_ml"]
    assert told[0].filename == __file__
    with pytest.raises(outlast.ConfigurationError, match="must be an outlast.Client or an address"):
        ft.create_recovery_manager(object())


class Page(html.parser.HTMLParser):
    """Checks that tags match, and keeps what a test asks for."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.told = [], [], []
        with open(path, encoding="utf-8") as file:
            self.text = file.read()
        self.feed(self.text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not {"src", "href", "onload"} & {name for name, _ in attrs}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.told.append(data)


def test_the_drawing_shows_what_happened(fleet, tmp_path):
    (empty,) = fleet.manager.create_visualization(tmp_path / "new" / "folder")
    assert "No failures" in Page(empty).text
    line = f"test {{knob.batch_size}} -le 16 || {{ {fails(OOM)}; }}"
    fleet.run("oom", line, knobs={"batch_size": [32, 16]})
    assert fleet.client.wait("oom", 120)["state"] == "succeeded"
    fleet.failed("plain", fails("<script>alert(1)</script> MemoryError"))
    fleet.manager.handle_failure("mine", "w<9>", f"{CUDA} \x1b[31m")
    (path,) = fleet.manager.create_visualization(str(tmp_path / "drawn"))
    assert path == str(tmp_path / "drawn" / "failure_history.html")
    page = Page(path)
    assert page.tags.count("svg") == 3 and "script" not in page.tags
    assert page.tags.count("circle") == 3  # each failure once
    told = " ".join(page.told)
    for text in ("oom .1", "plain .1", "mine .1", "w<9>", "reduced_batch_size", "delayed_retry"):
        assert text.replace(" ", "") in told.replace(" ", ""), text
    assert "the next attempt succeeded" in told
    assert "\x1b" not in page.text and "<script>alert(1)" in told
    assert "not tried" in told  # that task was final
