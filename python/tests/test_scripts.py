"""Programs with a worker: where its processes find functions, and how all of them end."""

import os
import re
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

from conftest import alive, fails, until

HEAD = """
import os, sys, time
import outlast
print("imported as", __name__, flush=True)
worker = outlast.Worker(sys.argv[1], name="script", state_dir=sys.argv[2], slots=2)
"""
FUNCTIONS = """
FACTOR = 3

class Wrong(ValueError):
    pass

@worker.task
def triple(n):
    print(f"tripling {n}\\n", end="")  # in one write, also with PYTHONUNBUFFERED
    return helper(n)

def helper(n):
    return n * FACTOR

@worker.task
def raises():
    raise Wrong("so")

@worker.task
def wait():
    while True:
        time.sleep(0.01)

worker.task(name="same")(lambda n: n)

class Scaled:
    def __init__(self, by):
        self.by = by
    def __call__(self, n):
        return n * self.by
    def method(self, n):
        return n + self.by

worker.task(name="scaled")(Scaled(5))
worker.task(Scaled(7).method)
"""


class Script:
    def __init__(self, processes, coordinator, tmp_path):
        self.processes, self.url, self.folder = processes, coordinator.url, tmp_path
        self.client = coordinator.client()

    def run(self, text, *command, **kwargs):
        path = self.folder / "script.py"
        path.write_text(text)
        command = command or (sys.executable, path)
        self.process = self.processes.start(
            *command, self.url, self.folder / "state", cwd=self.folder, **kwargs
        )
        return self

    def output(self):
        return (self.folder / f"{self.processes.all.index(self.process)}.log").read_text()

    def children(self):
        listed = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for path in listed for pid in path.read_text().split()]


@pytest.fixture
def script(processes, coordinator, tmp_path):
    return Script(processes, coordinator, tmp_path)


GUARDED = HEAD + FUNCTIONS + '\nif __name__ == "__main__":\n    worker.run()\n'
UNGUARDED = HEAD + FUNCTIONS + "\nworker.run()\nraise SystemExit('a child came here')\n"
STARTED = HEAD + FUNCTIONS + "\nwith worker:\n    time.sleep(1000)\n"
NESTED = HEAD + (
    'def main():\n' + textwrap.indent(FUNCTIONS, "    ") + "\n    worker.run()\n"
    'if __name__ == "__main__":\n    main()\n'
)  # fmt: skip
DECORATED = HEAD.replace("import outlast", "import outlast, functools") + (
    "def logged(f):\n    @functools.wraps(f)\n    def inner(*a):\n        return f(*a)\n    return inner\n"
) + FUNCTIONS.replace("@worker.task\ndef triple", "@logged\n@worker.task\n@logged\ndef triple") + "\nworker.run()\n"  # fmt: skip


@pytest.mark.parametrize("text", [GUARDED, UNGUARDED, STARTED, NESTED, DECORATED])
def test_functions_of_a_script(script, text):
    script.run(text)
    client = script.client
    assert list(client.map("triple", range(20), timeout=120)) == [3 * n for n in range(20)]
    assert client.submit_call("same", 5).result(120) == 5
    assert client.submit_call("scaled", 5).result(120) == 25
    assert client.submit_call("method", 5).result(120) == 12
    error = fails(client.submit_call("raises"), "Wrong: so")
    assert "in raises" in error.remote_traceback and "_child" not in error.remote_traceback
    assert text is NESTED or 'script.py", line' in error.remote_traceback
    assert "tripling 19" in script.output()
    if text is not NESTED:
        assert "imported as __mp_main__" in script.output()
    assert len(client.workers()) == 1 and "a child came here" not in script.output()
    script.process.send_signal(signal.SIGTERM)
    assert script.process.wait(20) == (1 if text == UNGUARDED else -15 if text == STARTED else 0)
    assert len(script.children()) == 0


@pytest.mark.parametrize("how", ["-c", "-", "-m"])
def test_functions_without_a_script(script, how):
    text = HEAD + FUNCTIONS + "\nworker.run()\n"
    if how == "-m":
        package = script.folder / "package"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "serve.py").write_text(text)
        script.run(text, sys.executable, "-m", "package.serve")
    elif how == "-c":
        script.run(text, sys.executable, "-c", text)
    else:
        (script.folder / "in").write_text(text)
        script.run(text, sys.executable, "-", stdin=open(script.folder / "in"))
    assert list(script.client.map("triple", range(5), timeout=120)) == [0, 3, 6, 9, 12]
    assert ("__mp_main__" in script.output()) == (how == "-m")


def test_a_script_that_submits_before_it_serves(script):
    text = HEAD + FUNCTIONS + (
        "client = outlast.Client(sys.argv[1])\n"
        "task = client.submit_call('triple', 14)\n"
        "worker.start()\n"
        "print('it is', task.result(120), flush=True)\n"
        "time.sleep(1000)\n"
    )  # fmt: skip
    script.run(text)
    until(lambda: "it is 42" in script.output())
    assert script.client.counts()["total"] == 1


def test_a_script_that_does_harm_when_it_is_imported(script):
    text = (
        "if __name__ != '__main__': raise RuntimeError('not twice')\n" + HEAD + FUNCTIONS + "worker.run()\n"
    )
    script.run(text)
    fails(script.client.submit_call("triple", 1), "could not import", "RuntimeError: not twice")


def test_what_cannot_be_sent_is_said(script):
    text = HEAD + (
        "import threading\n"
        "def main():\n"
        "    lock = threading.Lock()\n"
        "    worker.task(name='locked')(lambda: lock)\n"
        "    worker.run()\n"
        "if __name__ == '__main__': main()\n"
    )
    script.run(text)
    fails(script.client.submit_call("locked"), "'locked' cannot be sent to a process", "lock")


def test_without_cloudpickle(script):
    text = "import sys; sys.modules['cloudpickle'] = None\n" + NESTED
    script.run(text)
    assert script.process.wait(20) == 1
    assert "'triple' is not at the top of a file" in script.output()
    assert "pip install cloudpickle" in script.output()


def test_functions_defined_later(script):
    text = HEAD + FUNCTIONS + (
        "if __name__ == '__main__':\n"
        "    worker.start()\n"
        "    for n in (1, 2):\n"
        "        exec(f'@worker.task\\ndef late(): return {n}')\n"
        "        print(n, outlast.Client(sys.argv[1]).submit_call('late').result(120), flush=True)\n"
    )  # fmt: skip
    script.run(text)
    assert script.process.wait(20) == 0
    assert "1 1\n" in script.output() and "2 2\n" in script.output()


def test_no_process_outlives_a_killed_worker(script):
    script.run(GUARDED)
    task = script.client.submit_call("wait", spec={"kill_grace": 0.2})
    until(lambda: task.info()["started_at"])
    children = until(script.children)
    script.process.send_signal(signal.SIGKILL)
    script.process.wait()
    until(lambda: not any(map(alive, children)), 120)
    # What it ran is run again by the next one.
    script.run(GUARDED)
    until(lambda: task.info()["attempt"] == 2 and len(script.children()) > 0)
    task.cancel()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_of_them_is_left_to_the_worker(script, number):
    """Ctrl-C in a terminal; a service manager that stops a unit."""
    script.run(GUARDED, start_new_session=True)
    task = script.client.submit_call("wait")
    until(lambda: task.info()["started_at"])
    children = until(script.children)
    if number == signal.SIGINT:
        os.killpg(script.process.pid, number)
    else:
        for pid in [*children, script.process.pid]:
            os.kill(pid, number)
    assert script.process.wait(30) == 0
    assert not any(map(alive, children))
    assert "Traceback" not in script.output()
    # The task did not fail: it is run again.
    script.run(GUARDED, start_new_session=True)
    info = until(lambda: (i := task.info())["attempt"] == 2 and i)
    assert info["state"] == "assigned"
    task.cancel()


def test_the_end_of_the_interpreter(script):
    text = HEAD + FUNCTIONS + (
        "if __name__ == '__main__':\n"
        "    worker.start()\n"
        "    print(outlast.Client(sys.argv[1]).submit_call('triple', 1).result(120), flush=True)\n"
        "    print(worker._runner.agent.processes(), flush=True)\n"
    )  # fmt: skip
    script.run(text)
    assert script.process.wait(20) == 0
    listed = re.search(r"^\[(.*)\]$", script.output(), re.M).group(1)
    pids = [int(p) for p in listed.split(",")]
    assert pids and not any(map(alive, pids))
