"""The guide of the replaced system, block by block, as it is printed."""

import re
import threading
from pathlib import Path

import pytest

from conftest import ROOT, threads, until

GUIDE = ROOT.parent / "shared" / "seed" / "worker-reconnection-system.md"


def blocks():
    if not GUIDE.exists():
        pytest.skip(f"the guide is not here: {GUIDE.name} beside the repository, in shared/seed")
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S)


class Model:
    """Adds up what it is given."""

    def __init__(self):
        self.sum = 0.0

    def __call__(self, batch):
        self.sum += batch
        return self.sum

    def state_dict(self):
        return {"sum": self.sum}

    def load_state_dict(self, state):
        self.sum = state["sum"]


def test_every_block_runs_as_printed(shared, capsys):
    import outlast.compat.duckdb_api  # noqa: F401

    basic, configuration, execution, monitoring, reconnection = blocks()
    seen = {}
    names = {
        "load_model": lambda name: Model(),
        "load_dataset": lambda name: [float(n) for n in range(250)],
        "calculate_metrics": lambda output, batch: {"output": output},
    }

    def run(block, title):
        exec(compile(block, f"<guide: {title}>", "exec"), names)

    run(configuration, "Custom Configuration")
    run(execution, "Task Execution with Checkpointing")
    printed = names["MyWorkerImplementation"]

    class MyWorkerImplementation(printed):
        execute_task = names["execute_task"]

        def __init__(self, **given):
            super().__init__(**given)
            self.coordinator_url = shared.url  # the printed one is nobody's
            self.worker_id = "guide-worker"

        def start(self):
            plugin = names["reconnection_plugin"]
            until(plugin.is_connected)
            client = shared.client()
            task = client.submit_call("execute_task", model="m", dataset="d")
            seen["result"] = task.result(120)
            seen["state"] = task.state()
            seen["checkpoints"] = client.checkpoints(task)
            seen["worker"] = task.wait()["worker"]
            # The guide's sections on a running plugin come after the one that stops it.
            run(monitoring, "Monitoring Connection Quality")
            run(reconnection, "Force Reconnection")
            seen["config"] = plugin.reconnection_manager.config

        def stop(self):
            seen["stopped"] = True

    names["MyWorkerImplementation"] = MyWorkerImplementation
    run(basic, "Basic Integration")

    assert seen["result"] == {"completed_steps": 250, "final_metrics": {"output": 249 * 250 / 2}}
    assert seen["worker"] == "guide-worker" and seen["stopped"]
    assert seen["state"]["progress"] == 1.0
    assert seen["state"]["state"]["completed_steps"] == 250
    assert seen["state"]["state"]["status"] == "running"
    assert len(seen["checkpoints"]) == 3
    assert seen["config"]["checkpoint_interval"] == 600
    assert seen["config"]["ws_ping_interval"] == 30
    out = capsys.readouterr().out
    assert "Connected to coordinator\n" in out and "Connection stability: 1.00" in out
    assert "Reconnection successful" in out
    until(lambda: not threads(), what="the end of all threads")
    assert [t for t in threading.enumerate() if t is not threading.main_thread()] == []


def test_both_names_are_one_module():
    import outlast.compat.duckdb_api  # noqa: F401
    import outlast.worker_reconnection as new
    from duckdb_api.distributed_testing import worker_reconnection as old

    assert old is new
    import duckdb_api.distributed_testing.worker_reconnection as again

    assert again is new


def test_the_demo_runs_what_is_printed():
    example = (ROOT / "python" / "examples" / "guide_worker.py").read_text()
    _, configuration, execution, _, _ = blocks()
    assert configuration in example and execution in example
