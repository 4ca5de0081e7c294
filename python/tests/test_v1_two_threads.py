"""Twelve v1 clients of the replaced system's kind (v1_two_threads.py) through an outage: each has two
threads that dial, and opens a second connection while the first is still there."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import binary, free_port, listens, until

pytest.importorskip("websocket")
CLIENT = Path(__file__).with_name("v1_two_threads.py")
WORKERS = 12
# Duration of the outage, longer than the clients' timeout of 15 s. All in seconds.
CUT = 20
# Their dials begun in the outage wait up to 32 s more; then nothing is dialled any more.
SETTLED, WATCHED = 75, 60


def request(coordinator, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    wanted = urllib.request.Request(f"{coordinator.url}/api/v1{path}", data)
    wanted.add_header("content-type", "application/json")
    with urllib.request.urlopen(wanted, timeout=60) as answer:
        return json.load(answer)


def over(coordinator, tasks):
    return all(request(coordinator, f"/tasks/{t}")["state"] == "succeeded" for t in tasks)


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_after_an_outage_links_come_to_rest_and_all_tasks_are_done(processes, coordinator, fault):
    port = free_port()
    to = f"127.0.0.1:{coordinator.port}"
    workers = []
    for n in range(WORKERS):
        # With the address as such clients have it: a slash at the end, an id or none.
        place = "ID/ws/" if n % 2 else "{worker_id}/ws/"
        env = {**os.environ, "V1_PLACE": place}
        args = (sys.executable, CLIENT, f"http://127.0.0.1:{port}", f"w{n}")
        processes.start(*args, env=env)
        workers.append(processes.folder / f"{len(processes.all) - 1}.log")
    listen = ("chaos", "--listen", f"127.0.0.1:{port}", "--upstream", to)
    proxy = processes.start(binary(), *listen, stdin=subprocess.PIPE, text=True)

    def order(word):
        proxy.stdin.write(f"{word}\n")
        proxy.stdin.flush()

    until(lambda: listens(port), 60, "the proxy")

    def here():
        known = request(coordinator, "/workers")["workers"]
        return sum(w["state"] == "connected" for w in known) == WORKERS

    until(here, 120, "all workers, before the outage")
    # Each runs through the outage; every third answers first that it runs, and sends its result later.
    long = [
        {"id": f"long{n}", "call": {"function": "f", "args": {"steps": 40, "pause": 1, **more}}}
        for n in range(WORKERS)
        for more in [{"accepts": ["named", "unnamed", ""][n % 3]}]
    ]
    request(coordinator, "/tasks", long)
    until(lambda: all(request(coordinator, f"/tasks/{t['id']}")["worker"] for t in long), 120, "the long tasks")
    time.sleep(3)
    order(fault)
    time.sleep(CUT)
    order("heal")
    healed = time.time()
    time.sleep(10)
    short = [{"id": f"short{n}", "call": {"function": "f", "args": {}}} for n in range(5 * WORKERS)]
    request(coordinator, "/tasks", short)
    ids = [t["id"] for t in long + short]
    until(lambda: over(coordinator, ids), 240, "all tasks")
    for task in long:
        happened = [e["event"] for e in request(coordinator, f"/tasks/{task['id']}/history")["events"]]
        assert (happened.count("succeeded"), "superseded" in happened) == (1, False), happened
        assert request(coordinator, f"/tasks/{task['id']}")["attempt"] == 1, happened
    since = healed + SETTLED
    time.sleep(max(0.0, since + WATCHED - time.time()))
    for log in workers:
        lines = [line.split() for line in log.read_text().splitlines()]
        dialled = [float(line[0]) for line in lines if line[1:2] == ["CONNECTED"]]
        calm = [at for at in dialled if since <= at < since + WATCHED]
        assert len(dialled) > 1, "the outage reached it"
        assert not calm, f"{len(calm)} connections within {WATCHED} s of calm"
        assert len(dialled) <= 12, dialled
