"""The guide's worker through a cut link and a SIGKILL: `make demo-python`.

A coordinator, a proxy that can cut the link, and `guide_worker.py`: three processes of their own.
Exits with 1 if something that is promised did not hold. Takes about 40 seconds.
"""

import collections
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import outlast
from outlast.__main__ import find_command

HERE = Path(__file__).resolve().parent
STEPS, KEEP = 1000, 100  # as in the guide: a checkpoint every 100 steps
BEGAN = time.monotonic()
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
PAINT = {"bold": 1, "red": 31, "green": 32, "yellow": 33, "blue": 36, "dim": 2}


def paint(text, colour):
    return f"\033[{PAINT[colour]}m{text}\033[0m" if COLOUR else text


def say(text, colour=None):
    clock = paint(f"{time.monotonic() - BEGAN:6.1f} s ", "dim")
    print(f"{clock} {paint(text, colour) if colour else text}", flush=True)


def free_port():
    # Below the ports of outgoing connections, one of which could occupy it while its server is down.
    for _ in range(100):
        with socket.socket() as s, contextlib.suppress(OSError):
            port = random.randrange(15_000, 32_000)
            s.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port was found")


def until(condition, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit(paint(f"FAILED: {what} did not happen within {seconds} s", "red"))


def listening(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Stage:
    def __init__(self, folder):
        self.folder, self.all = folder, []
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.command = os.environ.get("OUTLAST_BIN") or find_command()

    def start(self, name, *args, **options):
        log = open(self.folder / f"{name}.log", "a")
        env = {**os.environ, "XDG_STATE_HOME": str(self.folder), "OUTLAST_CONFIG": os.devnull}
        args = [str(a) for a in args]
        process = subprocess.Popen(args, stdout=log, stderr=log, env=env, **options)
        self.all.append(process)
        return process

    def outlast(self, name, *args, **options):
        return self.start(name, self.command, *args, **options)

    def worker(self, url):
        return self.start("worker", sys.executable, HERE / "guide_worker.py", url, self.ledger)

    def steps(self):
        """(process, step) of every step that was run."""
        lines = self.ledger.read_text().split("\n")[:-1]
        return [tuple(map(int, line.split())) for line in lines]

    def end(self):
        for process in reversed(self.all):
            process.kill()
            process.wait()


def bar(done, width=40):
    full = round(width * done / STEPS)
    return "█" * full + "░" * (width - full) + f" {done:4d}/{STEPS}"


def known(task):
    """Steps done, as the coordinator knows it."""
    return task.state()["state"].get("completed_steps", 0)


def play(stage):
    at, via = free_port(), free_port()
    stage.outlast("coordinator", "coordinator", "--listen", f"127.0.0.1:{at}", "--data-dir",
                  stage.folder / "coordinator", "--no-keys")  # fmt: skip
    until(lambda: listening(at), 20, "the coordinator's start")
    proxy = stage.outlast("proxy", "chaos", "--listen", f"127.0.0.1:{via}", "--upstream",
                          f"127.0.0.1:{at}", stdin=subprocess.PIPE, text=True)  # fmt: skip
    until(lambda: listening(via), 20, "the proxy's start")

    def link(fault):
        proxy.stdin.write(fault + "\n")
        proxy.stdin.flush()

    client = outlast.Client(f"http://127.0.0.1:{at}")
    first = stage.worker(f"http://127.0.0.1:{via}")
    until(lambda: any(w["state"] == "connected" for w in client.workers()), 20, "the worker's arrival")
    say(f"the guide's worker runs (process {first.pid}); its link goes through a proxy")
    task = client.submit_call("execute_task", model="m", dataset="d")
    say(f"a task of {STEPS} steps, a checkpoint every {KEEP}: {task.id}")

    until(lambda: known(task) >= 250, 60, "step 250")
    say(bar(known(task)))
    link("cut")
    say("the link is CUT", "yellow")
    time.sleep(1)
    seen, ran = known(task), len(stage.steps())
    time.sleep(5)
    later, more = known(task), len(stage.steps())
    say(f"5 s later: the coordinator still knows of step {later}, the worker did {more - ran} more")
    assert later == seen, "the coordinator cannot know of what happens behind a cut link"
    assert more - ran > 50, "the worker must go on"
    link("heal")
    healed = time.monotonic()
    say("the link is back", "green")
    until(lambda: known(task) > later + 50, 40, "the worker's return")
    say(f"{bar(known(task))}  back {time.monotonic() - healed:.1f} s after")
    assert task.info()["attempt"] == 1, "nobody may run the task a second time for a cut"

    until(lambda: known(task) >= 670, 60, "step 670")
    kept = max(c["number"] for c in client.checkpoints(task))
    first.send_signal(signal.SIGKILL)
    first.wait()
    ran = len(stage.steps())
    say(f"SIGKILL for the worker, after step {ran}; checkpoint {kept} is the newest", "red")
    second = stage.worker(f"http://127.0.0.1:{via}")
    say(f"a new process {second.pid} with the same worker_id")
    until(lambda: len(stage.steps()) > ran, 60, "the next step")
    at_step = next(step for process, step in stage.steps() if process == second.pid)
    say(f"it goes on at step {at_step} of {STEPS}, from the checkpoint", "green")
    result = task.result(60)
    say(f"{bar(STEPS)}  {result}")
    return task, first.pid, second.pid, result


def check(stage, task, first, second, result):
    times = collections.Counter(step for _, step in stage.steps())
    again = sum(times.values()) - len(times)
    end = task.wait()
    rows = [
        ("every step was run", len(times) == STEPS),
        (f"steps run again: {again}, at most {KEEP} (since the last checkpoint)", again <= KEEP),
        ("the result is that of an undisturbed run", result["final_metrics"] == {"sum": sum(range(STEPS))}),
        ("both processes worked on it", {p for p, _ in stage.steps()} == {first, second}),
        ("two attempts: one per process, none for the cut", end["attempt"] == 2),
        ("one result", [e["event"] for e in task.history()].count("succeeded") == 1),
    ]
    print()
    for text, good in rows:
        print(f"  {paint('✓', 'green') if good else paint('✗', 'red')} {text}")
    print()
    return all(good for _, good in rows)


def main():
    folder = Path(tempfile.mkdtemp(prefix="outlast-demo-python-"))
    stage = Stage(folder)
    print(paint("The guide's worker, as printed, through a cut link and a SIGKILL", "bold"))
    good = False
    try:
        good = check(stage, *play(stage))
        say("nothing was lost" if good else "FAILED", "green" if good else "red")
    except (AssertionError, outlast.OutlastError, TimeoutError) as e:
        say(f"FAILED: {e}", "red")
    finally:
        stage.end()
        if good:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"logs: {folder}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
