"""Cut links and killed processes."""

import os
import signal
import subprocess
import time

import pytest
from outlast.worker_reconnection import WorkerReconnectionManager

from conftest import binary, free_port, listens, until

WORKER = """
import os, sys, time, logging
logging.basicConfig(level=logging.INFO)
from outlast.worker_reconnection import create_worker_reconnection_plugin

class Worker:
    worker_id = "durable"
    coordinator_url = sys.argv[1]
    reconnection_config = {"initial_reconnect_delay": 0.1, "max_reconnect_delay": 0.5,
                           "heartbeat_interval": 0.3, "heartbeat_timeout": 1.0}

    def execute_task(self, task_id, config):
        plugin = self.reconnection_plugin
        saved = plugin.get_latest_checkpoint(task_id) or {"done": 0, "pids": ()}
        done, pids = saved["done"], saved["pids"] + (os.getpid(),)
        began = done
        for step in range(done, config["steps"]):
            time.sleep(0.005)
            done = step + 1
            plugin.update_task_state(task_id, {"done": done, "progress": done / config["steps"]})
            if done % 50 == 0:
                plugin.create_checkpoint(task_id, {"done": done, "pids": pids})
        return {"done": done, "began": began, "pids": pids}

plugin = create_worker_reconnection_plugin(Worker())
time.sleep(1000)
"""


def test_a_killed_worker_goes_on_from_its_checkpoint(coordinator, processes):
    first = processes.python(WORKER, coordinator.url)
    task = coordinator.client().submit_call("execute_task", steps=400)
    until(lambda: (task.state()["progress"] or 0) > 0.4, what="some progress")
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = processes.python(WORKER, coordinator.url)
    result = task.result(120)
    assert result["done"] == 400 and result["began"] >= 150
    assert result["pids"] == [first.pid, second.pid]
    end = task.wait()
    assert end["attempt"] == 2 and end["state"] == "succeeded"


def test_a_cut_link_and_a_killed_coordinator(coordinator, processes):
    port = free_port()
    proxy = lambda: processes.start(  # noqa: E731
        binary(), "chaos", "--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{coordinator.port}"
    )
    chaos = proxy()
    until(lambda: listens(port))
    worker = processes.python(WORKER, f"http://127.0.0.1:{port}")
    task = coordinator.client().submit_call("execute_task", steps=300)
    until(lambda: (task.state()["progress"] or 0) > 0.1)
    # The task ends while the link is away, and the coordinator with it.
    chaos.kill()
    chaos.wait()
    coordinator.kill()
    time.sleep(2.5)
    coordinator.start()
    assert task.info()["state"] == "assigned"
    proxy()
    result = task.result(120)
    assert result == {"done": 300, "began": 0, "pids": [worker.pid]}
    assert task.wait()["attempt"] == 1


def test_a_ping_notices_a_half_open_link(coordinator, processes):
    port = free_port()
    chaos = processes.start(
        binary(), "chaos", "--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{coordinator.port}",
        stdin=subprocess.PIPE, text=True,
    )
    until(lambda: listens(port))
    manager = WorkerReconnectionManager("pinged", f"http://127.0.0.1:{port}")
    # Heartbeats alone would take minutes.
    manager.configure({
        "heartbeat_interval": 100, "heartbeat_timeout": 300, "ws_ping_interval": 0.3, "ws_ping_timeout": 0.3,
        "initial_reconnect_delay": 0.1,
    })
    manager.start()
    try:
        until(manager.is_connected)
        time.sleep(1)
        assert manager.get_connection_stats().successful_connections == 1, "pings are answered"
        chaos.stdin.write("half-open\n")
        chaos.stdin.flush()
        until(lambda: not manager.is_connected(), 120, "the loss")
        # What dialled meanwhile hangs in the proxy.
        chaos.stdin.write("cut\nheal\n")
        chaos.stdin.flush()
        until(manager.is_connected, 120, "the return")
    finally:
        manager.stop()


def test_scheduled_cuts(coordinator, processes):
    port = free_port()
    processes.start(
        binary(), "chaos", "--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{coordinator.port}",
        "--schedule", "every 1s cut for 300ms",
    )  # fmt: skip
    until(lambda: listens(port))
    processes.python(WORKER, f"127.0.0.1:{port}")
    client = coordinator.client()
    tasks = [client.submit_call("execute_task", steps=60) for _ in range(5)]
    for task in tasks:
        assert task.result(120)["done"] == 60
    assert [t.wait()["attempt"] for t in tasks] == [1] * 5


def test_a_worker_that_dies_by_a_signal(coordinator, processes):
    script = WORKER.replace('done, pids = saved', 'config["die"] and not saved["done"] and ('
                            'plugin.create_checkpoint(task_id, {"done": 7, "pids": ()}),'
                            ' os.kill(os.getpid(), 11))\n        done, pids = saved')  # fmt: skip
    first = processes.python(script, coordinator.url)
    task = coordinator.client().submit_call("execute_task", steps=10, die=True)
    assert first.wait(20) == -signal.SIGSEGV
    processes.python(script, coordinator.url)
    assert task.result(120)["began"] == 7


def test_exit_without_stop_and_ctrl_c(coordinator, processes):
    script = WORKER.replace("time.sleep(1000)", "time.sleep(float(sys.argv[2]))")
    assert processes.python(script, coordinator.url, "1").wait(15) == 0
    waiting = processes.python(script, coordinator.url, "1000")
    client = coordinator.client()
    until(lambda: any(w["name"] == "durable" and w["state"] == "connected" for w in client.workers()))
    task = client.submit_call("execute_task", steps=100_000)
    until(lambda: (task.state()["progress"] or 0) > 0)
    waiting.send_signal(signal.SIGINT)
    waiting.wait(15)
    assert "KeyboardInterrupt" in "".join(p.read_text() for p in processes.folder.glob("*.log"))
    task.cancel()


def test_a_fork_does_not_touch_its_parents_worker(coordinator):
    from outlast import StoppedError
    from outlast.worker_reconnection import WorkerReconnectionManager

    manager = WorkerReconnectionManager("parent", coordinator.url, task_executor=lambda *_: {"pid": os.getpid()})
    manager.start()
    until(manager.is_connected)
    client = coordinator.client()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(StoppedError, match="forked"):
                manager.force_reconnect()
            manager.stop()
            # A client works in both.
            code = 0 if client.submit_call("execute_task").result(120)["pid"] == os.getppid() else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.submit_call("execute_task").result(120) == {"pid": os.getpid()}
    manager.stop()
