"""Real processes: a coordinator, a bad network, and workers that are killed."""

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Most tests are about something else than keys.
os.environ.setdefault("OUTLAST_NO_KEYS", "1")


def binary():
    """The command under test: $OUTLAST_BIN, else the one that came with the package."""
    from outlast.__main__ import find_command

    named = os.environ.get("OUTLAST_BIN")
    if named is None:
        try:
            return find_command()
        except FileNotFoundError as e:
            pytest.exit(f"{e}, or set OUTLAST_BIN", 3)
    if not os.access(named, os.X_OK):
        pytest.exit(f"no outlast command at OUTLAST_BIN={named}", 3)
    return named


def free_port():
    # Below the ports of outgoing connections, one of which could occupy it while its server is down.
    for _ in range(100):
        with socket.socket() as s, contextlib.suppress(OSError):
            port = random.randrange(15_000, 32_000)
            s.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port was found")


def until(condition, seconds=120.0, what="it"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds} s")


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def fails(task, *says):
    import outlast

    with pytest.raises(outlast.TaskFailed) as failed:
        task.result(120)
    for text in says:
        assert text in failed.value.message
    return failed.value


class Processes:
    def __init__(self, folder):
        self.folder, self.all = folder, []

    def start(self, *args, **kwargs):
        log = open(self.folder / f"{len(self.all)}.log", "w")
        p = subprocess.Popen([str(a) for a in args], stdout=log, stderr=log, **kwargs)
        self.all.append(p)
        return p

    def python(self, script, *args, **env):
        path = self.folder / "worker.py"
        path.write_text(script)
        return self.start(sys.executable, path, *args, env={**os.environ, **env})

    def end(self):
        for p in self.all:
            p.kill()
            p.wait()


@pytest.fixture
def processes(tmp_path):
    made = Processes(tmp_path)
    yield made
    made.end()


class Coordinator:
    def __init__(self, processes, folder, *args):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._again = lambda: processes.start(
            binary(), "coordinator", "--listen", f"127.0.0.1:{self.port}", "--data-dir", folder, *args
        )
        self.start()

    def start(self):
        self.process = self._again()
        until(lambda: listens(self.port), what="the coordinator's start")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def client(self, **options):
        import outlast

        return outlast.Client(self.url, **options)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """One coordinator for all tests that do not harm it."""
    folder = tmp_path_factory.mktemp("coordinator")
    processes = Processes(folder)
    yield Coordinator(processes, folder / "data")
    processes.end()


@pytest.fixture
def coordinator(processes, tmp_path):
    """A coordinator of this test's own."""
    return Coordinator(processes, tmp_path / "coordinator")


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("OUTLAST_API_KEY", raising=False)
    monkeypatch.delenv("OUTLAST_COORDINATOR", raising=False)


def threads():
    """Threads of this process that this package started."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:
            pass
    return [n for n in names if re.match("outlast", n) and n != "outlast-client"]
