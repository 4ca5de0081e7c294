"""What reports of failures say, and actions that leave things out."""

import dataclasses
import enum
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


SAID = [t.name for t in FailureType]


@pytest.mark.parametrize("name", SAID)
def test_a_type_that_the_report_says_decides(shared, name):
    manager = ft.create_recovery_manager(shared.url)
    member = FailureType[name]
    other = enum.Enum("Other", {name: 1})
    forms = [
        member, name, name.lower(), name.title(), f" {name} ", f"FailureType.{name}", str(member),
        name.lower().replace("_", "-"), name.replace("_", " "), other[name],
    ]  # fmt: skip
    for n, form in enumerate(forms):
        # Whatever else is said, by the text, by how it ended, and by what others failed of.
        report = {"message": f"{CUDA}; OOM", "stderr": "ECONNRESET", "exit_code": 139, "signal": 11}
        for where in ("type", "error_type"):
            action = manager.handle_failure(f"{name}-{n}-{where}", "w", {**report, where: form})
            (made,) = manager.get_recovery_history(f"{name}-{n}-{where}")
            assert made["context"].error_type is member, form
            assert f"reported as {name}: " in action.message
    # A class that has nothing to do with it is no reason to overlook it.
    manager.handle_failure("both", "w", {"type": ValueError, "error_type": member, "message": "x"})
    (made,) = manager.get_recovery_history("both")
    assert made["context"].error_type is member


def test_a_context_says_its_type_unless_that_is_unknown(shared):
    manager = ft.create_recovery_manager(shared.url)
    context = ft.FailureContext("x", "w", error_message=OOM, error_type=FailureType.TIMEOUT)
    manager.handle_failure("x", "w", context)
    assert manager.get_recovery_history("x")[0]["context"].error_type is FailureType.TIMEOUT


def test_texts_are_classified_as_they_say(shared):
    manager, wrong = ft.create_recovery_manager(shared.url), []
    for n, (report, expected) in enumerate([
        ("OOM", "RESOURCE_EXHAUSTION"),
        ("timeout", "TIMEOUT"),
        ("connection lost", "COMMUNICATION_ERROR"),
        ("browser disconnected", "BROWSER_FAILURE"),
        ("worker crash detected", "WORKER_CRASH"),
        ("worker disconnected", "WORKER_DISCONNECTION"),
        ("hardware failure", "HARDWARE_ERROR"),
        (RuntimeError("worker died"), "WORKER_CRASH"),
        (RuntimeError("OOM"), "RESOURCE_EXHAUSTION"),
        (Exception("heartbeat missed"), "WORKER_DISCONNECTION"),
        (TimeoutError(), "TIMEOUT"),
        (BrokenPipeError(32, "Broken pipe"), "COMMUNICATION_ERROR"),
        (ValueError("timeout=30 is too long"), "SOFTWARE_ERROR"),
        (ValueError("no room for a bloom filter"), "SOFTWARE_ERROR"),
        ({"message": "x", "type": "cuda_error"}, "HARDWARE_ERROR"),
        ({"message": "webgpu context lost", "type": "webgpu_error"}, "BROWSER_FAILURE"),
        ({"type": "network_error"}, "COMMUNICATION_ERROR"),
        ({"type": "TimeoutError"}, "TIMEOUT"),
        # As a v1 result has it.
        ({"error": {"message": "OOM", "traceback": "x"}}, "RESOURCE_EXHAUSTION"),
        ({"exception": ConnectionResetError(104, "Connection reset by peer")}, "COMMUNICATION_ERROR"),
        ({"error": {"message": "x", "type": "timeout"}}, "TIMEOUT"),
        ({"exit_code": -11}, "SOFTWARE_ERROR"),
        ("exit code 124", "TIMEOUT"),
        ("Killed", "UNKNOWN"),
        ("the bathroom is out of order", "UNKNOWN"),
        ("could not parse the file", "UNKNOWN"),
    ]):
        manager.handle_failure(str(n), "w", report)
        (made,) = manager.get_recovery_history(str(n))
        if made["context"].error_type.name != expected:
            wrong.append((report, made["context"].error_type.name, made["action"].message))
    assert wrong == []


CUDA_WORKER = ("--capability", 'hardware=["cpu", "cuda"]')


@pytest.fixture
def devices(processes, tmp_path):
    """One worker where things fail, one without a GPU, and one with CUDA."""
    fleet = Fleet(processes, tmp_path)
    for name, has in (("w1", CUDA_WORKER), ("w2", ()), ("w3", CUDA_WORKER)):
        fleet.worker(name, *has)
    return fleet


def moved(fleet, task_id, report):
    """The action once it is another worker's turn, for a manager that knows no other failures."""
    manager = ft.create_recovery_manager(fleet.client)
    first = manager.handle_failure(task_id, "w1", {"message": CUDA, **report})
    assert first.strategy is RecoveryStrategy.DELAYED_RETRY
    return manager.handle_failure(task_id, "w1", {"message": CUDA, **report})


def test_another_worker_has_what_the_task_asks_for(devices):

    class Device:
        """As torch has it."""

        def __str__(self):
            return "cuda:0"

    Device.__name__ = "device"
    for n, report in enumerate([
        {"task": {"device": "cuda"}},
        {"task": {"device": "CUDA:0"}},
        {"task": {"device": Device()}},
        {"task": {"args": {"device": "cuda"}}},
        {"task": {"config": {"params": {"device": "cuda"}}}},
        {"task": {"args": ["train.py", "--device", "cuda"]}},
        {"task": {"command": ["train.py", "--device=cuda"]}},
        {"task": {"shell": "python train.py --device cuda"}},
        {"task": {"call": {"function": "f", "args": {"device": "cuda"}}}},
        {"task": {"requirements": {"hardware": ["cuda"]}}},
        {"task": {"requirements": {"cuda": True}}},
        {"task": {"requirements": ["cuda"]}},
        {"task": {"requires": {"device": "cuda"}}},
        {"task": {"hardware_requirements": {"hardware": "cuda|rocm"}}},
        {"task": {"use_gpu": True}},
        {"task": {"num_gpus": 1}},
        {"context": {"device": "cuda"}},
        {"requirements": {"device": "cuda"}},
        {"args": {"device": "cuda"}},
        {"device": "cuda"},
    ]):
        action = moved(devices, f"own-{n}", report)
        assert action.strategy is RecoveryStrategy.DIFFERENT_WORKER, (report, action)
        assert action.worker_id == "w3", (report, action)
        assert action.hardware_requirements["worker"] == "!=w1"
        assert re.match("(?i)cuda|gpu", action.hardware_requirements["device"])
    for n, report in enumerate([
        {"task": {"device": "cpu"}},
        {"task": {"device": "auto"}},
        {"task": {"device": "/dev/ttyUSB0"}},
        {"task": {"gpu": False, "num_gpus": 0, "note": "cuda"}},
        {"task": {"requires": {"hardware": "!=cuda"}}},
        {"hardware": "cuda:0"},
    ]):
        action = moved(devices, f"any-{n}", report)
        assert (action.strategy, action.worker_id) == (RecoveryStrategy.DIFFERENT_WORKER, "w2"), report


def test_nobody_else_has_what_the_task_asks_for(devices):
    action = moved(devices, "own", {"task": {"device": "tpu"}})
    assert action.strategy is RecoveryStrategy.DELAYED_RETRY and action.worker_id is None
    for text in (
        "no other connected worker has tpu, which task.device asks for",
        "not offered without it: w2, w3",
        "start a worker that has it, or give the task a knob device that ends with cpu",
    ):
        assert text in action.message
    with_knob = {"task": {"device": "tpu", "knobs": {"device": ["tpu", "cpu"]}}}
    made = [devices.manager.handle_failure("k", "w1", {"message": CUDA, **with_knob}) for _ in "12"]
    assert made[-1].strategy is RecoveryStrategy.FALLBACK_CPU
    assert "not different_worker: no other connected worker has tpu" in made[-1].message


def test_a_task_of_the_coordinator_goes_to_the_device_that_it_asks_for(devices):
    spec = {"shell": fails(CUDA) + " # --device cuda"}
    devices.client.submit({"id": "u", **spec})
    here = devices.client.wait("u", 120)["worker"]
    assert devices.manager.handle_failure("u", here, {}).strategy is RecoveryStrategy.DELAYED_RETRY
    action = devices.manager.handle_failure("u", here, {})
    assert action.strategy is RecoveryStrategy.DIFFERENT_WORKER
    assert action.worker_id in {"w1", "w3"} - {here}
    done = devices.manager.apply_recovery_action("u", action)
    end = devices.client.wait(done["task_id"], 120)
    assert end["worker"] in {"w1", "w3"} - {here}
    # By the name of the strategy alone.
    devices.client.submit({"id": "v", **spec})
    here = devices.client.wait("v", 120)["worker"]
    done = devices.manager.apply_recovery_action("v", "different_worker")
    assert devices.client.wait(done["task_id"], 120)["worker"] in {"w1", "w3"} - {here}
    # One that runs is moved there.
    devices.run("long", "sleep 600 # --device cuda")
    here = until(lambda: devices.client.info("long")["started_at"] and devices.client.info("long"))["worker"]
    assert devices.manager.apply_recovery_action("long", "different_worker")["did"] == "move"
    until(lambda: devices.client.info("long")["worker"] in {"w1", "w3"} - {here})
    # Or nowhere.
    devices.run("tpu", "sleep 600 # --device tpu")
    until(lambda: devices.client.info("tpu")["started_at"])
    with pytest.raises(outlast.OutlastError) as refused:
        devices.manager.apply_recovery_action("tpu", RecoveryStrategy.DIFFERENT_WORKER)
    assert "has tpu, which --device in the command asks for" in str(refused.value)
    assert "or name a worker as action.worker_id" in str(refused.value)
    devices.run("waits", "true", requires={"site": "moon"})
    with pytest.raises(outlast.OutlastError, match="does not meet site"):
        devices.manager.apply_recovery_action("waits", "different_worker")
    with pytest.raises(outlast.OutlastError, match="while it waits"):
        devices.manager.apply_recovery_action("waits", "reduced_batch_size")
    assert devices.manager.apply_recovery_action("waits", "delayed_retry")["did"] == "nothing"


@pytest.mark.parametrize(
    "action",
    [
        RecoveryAction(RecoveryStrategy.IMMEDIATE_RETRY),
        RecoveryAction("immediate_retry"),
        RecoveryStrategy.IMMEDIATE_RETRY,
        "immediate_retry",
        "IMMEDIATE_RETRY",
        "RecoveryStrategy.IMMEDIATE_RETRY",
        {"strategy": "immediate_retry"},
        {"strategy": RecoveryStrategy.BROWSER_RESTART},
        dataclasses.asdict(RecoveryAction(RecoveryStrategy.IMMEDIATE_RETRY)),
        {"strategy": "delayed_retry", "delay": 0},
    ],
    ids=repr,
)
def test_an_action_may_be_a_name(fleet, action):
    fleet.failed("t", "exit 3")
    done = fleet.manager.apply_recovery_action("t", action)
    assert (done["did"], done["task_id"]) == ("retry", "t")
    until(lambda: fleet.client.info("t")["attempt"] == 2)


def test_what_an_action_leaves_out_is_filled_in(fleet, monkeypatch):
    fleet.worker("w2")
    apply = fleet.manager.apply_recovery_action
    knobs = {"batch_size": [8, 4, 2], "precision": ["fp32", "fp16"], "device": ["cuda", "cpu"]}
    # Where a GPU is required, only the fallback goes elsewhere.
    line = "test {knob.batch_size} = 4"
    fleet.failed("b", line, knobs=knobs)
    done = apply("b", RecoveryAction(RecoveryStrategy.REDUCED_BATCH_SIZE))
    assert fleet.client.wait(done["task_id"], 120)["state"] == "succeeded"
    fleet.failed("p", "test {knob.precision} = fp16", knobs=knobs)
    done = apply("p", "REDUCED_PRECISION")
    assert fleet.client.wait(done["task_id"], 120)["state"] == "succeeded"
    fleet.failed("c", "test {knob.device} = cpu", knobs=knobs)
    done = apply("c", {"strategy": "fallback_cpu"})
    assert fleet.client.wait(done["task_id"], 120)["state"] == "succeeded"
    here = fleet.failed("w", "exit 3")["worker"]
    done = apply("w", RecoveryStrategy.DIFFERENT_WORKER)
    assert {here, fleet.client.wait(done["task_id"], 120)["worker"]} == {"w1", "w2"}
    with pytest.raises(outlast.OutlastError, match="simplified_model cannot be applied: it has no knob"):
        apply("w", "simplified_model")
    # A pause that nobody named is the table's.
    pauses = []
    monkeypatch.setattr("outlast._applying.time.sleep", pauses.append)
    for n, action in enumerate(["delayed_retry", RecoveryAction(RecoveryStrategy.DELAYED_RETRY)]):
        fleet.failed(f"d{n}", "exit 3", recovery={"base_delay": 7, "jitter": 0})
        apply(f"d{n}", action)
    assert pauses == [7.0, 7.0]
    apply_now = fleet.failed("now", "exit 3", recovery={"base_delay": 7, "jitter": 0})
    assert apply("now", "delayed_retry", wait=False)["did"] == "retry" and apply_now
    assert pauses == [7.0, 7.0]
