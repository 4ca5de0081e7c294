"""The documented example of the v1 dialect, against a real coordinator: nothing of this package is
in it."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest
from conftest import ROOT, binary, free_port, listens, until

pytest.importorskip("websocket")
EXAMPLE = ROOT / "examples" / "v1_worker.py"


def get(coordinator, path):
    with urllib.request.urlopen(f"{coordinator.url}/api/v1{path}", timeout=60) as answer:
        return json.load(answer)


def post(coordinator, path, body=None):
    data = json.dumps(body if body is not None else {}).encode()
    request = urllib.request.Request(f"{coordinator.url}/api/v1{path}", data, method="POST")
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status


def state(coordinator, task):
    return get(coordinator, f"/tasks/{task}")["state"]


def events(coordinator, task):
    return [e["event"] for e in get(coordinator, f"/tasks/{task}/history")["events"]]


def call(name, function, args, **spec):
    return {"id": name, "call": {"function": function, "args": args}, **spec}


def worker(processes, url, name):
    return processes.start(sys.executable, EXAMPLE, url, name)


def test_results_failures_states_and_cancels(processes, coordinator):
    worker(processes, coordinator.url, "example")
    tasks = [call(f"s{n}", "square", {"n": n}) for n in range(20)]
    post(coordinator, "/tasks", [*tasks, call("none", "nothing", {})])
    until(lambda: all(state(coordinator, t["id"]) == "succeeded" for t in tasks), what="20 results")
    assert get(coordinator, "/tasks/s7/result")["value"] == {"square": 49}
    until(lambda: state(coordinator, "none") == "failed", what="the failure")
    failed = get(coordinator, "/tasks/none/result")
    assert "has no function" in failed["message"]
    assert "LookupError" in failed["value"]["traceback"]

    post(coordinator, "/tasks", call("c", "count", {"to": 10_000, "pause": 0.01}))
    until(lambda: get(coordinator, "/tasks/c/state")["state"].get("done", 0) > 20, what="progress")
    until(lambda: get(coordinator, "/tasks/c/checkpoints")["checkpoints"], what="a checkpoint")
    # Before it asks, the command line says that a v1 worker may not answer.
    order = [binary(), "--coordinator", coordinator.url, "task", "pause", "c"]
    said = subprocess.run(order, capture_output=True, text=True, timeout=120, check=True).stderr
    assert "worker example speaks the v1 dialect" in said and "withdrawn" in said, said
    until(lambda: "noted" in events(coordinator, "c"), what="the pause")
    post(coordinator, "/tasks/c/resume")
    until(lambda: events(coordinator, "c").count("noted") == 2, what="the resume")
    post(coordinator, "/tasks/c/cancel")
    until(lambda: state(coordinator, "c") == "cancelled", what="the cancel")


def test_through_cuts_each_result_counts_once(processes, coordinator):
    port = free_port()
    listen, to = f"127.0.0.1:{port}", f"127.0.0.1:{coordinator.port}"
    script = "; ".join(f"{n}s cut; {n}.2s heal" for n in range(1, 12, 2))
    processes.start(binary(), "chaos", "--listen", listen, "--upstream", to, "--schedule", script)
    until(lambda: listens(port), what="the proxy")
    worker(processes, f"http://{listen}", "behind-cuts")
    tasks = [call(f"t{n}", "count", {"to": 3, "pause": 0.1}) for n in range(30)]
    post(coordinator, "/tasks", tasks)
    done = lambda: all(state(coordinator, t["id"]) == "succeeded" for t in tasks)  # noqa: E731
    until(done, seconds=90, what="30 results")
    for task in tasks:
        happened = events(coordinator, task["id"])
        assert happened.count("succeeded") == 1, happened
        assert "superseded" not in happened, happened


def test_what_a_killed_worker_had_goes_on_from_its_checkpoint(processes, coordinator):
    first = worker(processes, coordinator.url, "first")
    spec = call("long", "count", {"to": 60, "pause": 0.05}, reconnect_window=0.5)
    post(coordinator, "/tasks", spec)
    until(lambda: get(coordinator, "/tasks/long/checkpoints")["checkpoints"], what="a checkpoint")
    first.send_signal(signal.SIGKILL)
    worker(processes, coordinator.url, "second")
    until(lambda: state(coordinator, "long") == "succeeded", seconds=30, what="the result")
    result = get(coordinator, "/tasks/long/result")
    assert result["worker"] == "second"
    assert result["value"]["counted"] == 60
    assert result["value"]["from"] >= 10, "it started from the beginning"
