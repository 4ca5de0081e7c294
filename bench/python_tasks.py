"""Speed and memory of the Python package, in one run: `python bench/python_tasks.py [--tasks N]`.

Starts a coordinator and a worker of its own (the command is `$OUTLAST_BIN`, else that of
target/release). Every task is durable at both sides before its result is given. Peers' figures are
those of the project's issue, taken on another day on such a machine, in memory.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import outlast

ROOT = Path(__file__).resolve().parents[1]
NAME = "bench"


def noop(n):
    return n


def serve(url, isolation, slots, folder):
    worker = outlast.Worker(url, name=NAME, slots=slots, isolation=isolation, state_dir=folder)
    worker.task(noop)
    worker.start()
    print("ready", flush=True)
    for _ in sys.stdin:
        told = {"worker": rss(os.getpid()), "children": sum(map(rss, worker._runner.agent.processes()))}
        print(json.dumps(told), flush=True)
    worker.stop()


def rss(pid):
    """Bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) << 10
    return 0


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("it did not start in time")
        time.sleep(0.05)


class Worker:
    def __init__(self, url, isolation, slots, folder):
        command = [sys.executable, __file__, "--serve", url, isolation, str(slots), str(folder)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def memory(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return {**json.loads(self.process.stdout.readline()), "client": rss(os.getpid())}

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)


def measure(client, function, count):
    began = time.perf_counter()
    total = sum(client.map(function, range(count)))
    assert total == count * (count - 1) // 2, total
    return count / (time.perf_counter() - began)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--tasks", type=int, default=20_000)
    options.add_argument("--memory", type=int, default=100_000, help="0 leaves it out")
    options.add_argument("--slots", type=int, default=4)
    options.add_argument("--serve", nargs=4)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    if given.serve:
        url, isolation, slots, folder = given.serve
        return serve(url, isolation, int(slots), folder)

    found = {}
    timed = "import time; t = time.perf_counter(); import outlast; print(time.perf_counter() - t)"
    runs = [float(subprocess.check_output([sys.executable, "-c", timed])) for _ in range(5)]
    found["import outlast, ms"] = min(runs) * 1000
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % s.getsockname()[1]
        binary = os.environ.get("OUTLAST_BIN") or ROOT / "target/release/outlast"
        command = [binary, "coordinator", "--listen", address, "--data-dir", folder / "c"]
        coordinator = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            client = outlast.Client(address, patience=20)
            client.counts()
            for isolation in ("thread", "process"):
                worker = Worker(address, isolation, given.slots, folder / isolation)
                measure(client, "noop", 2000)
                what = f"Client.map, isolation={isolation}, tasks/s"
                found[what] = max(measure(client, "noop", given.tasks) for _ in range(3))
                if isolation == "process":
                    executor = getattr(outlast, "Executor", None)
                    if executor is not None:
                        with executor(client) as pool:
                            began = time.perf_counter()
                            for future in [pool.submit(divmod, n, 3) for n in range(given.tasks)]:
                                future.result()
                            seconds = time.perf_counter() - began
                            found["Executor.submit, isolation=process, tasks/s"] = given.tasks / seconds
                    if given.memory:
                        measure(client, "noop", given.memory // 10)
                        found["resident, MB, early"] = megabytes(worker.memory())
                        measure(client, "noop", given.memory * 9 // 10)
                        found["resident, MB, late"] = megabytes(worker.memory())
                worker.end()
        finally:
            coordinator.terminate()
            coordinator.wait(30)
    for what, value in found.items():
        print(f"{what:50} {value if isinstance(value, dict) else round(value, 1)}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def megabytes(memory):
    return {who: round(size / 1e6, 1) for who, size in memory.items()}


if __name__ == "__main__":
    main()
