"""Tasks that fail, and a coordinator with workers to run them."""

import os

from outlast import fault_tolerance as ft

from conftest import Coordinator, binary, until

OOM = "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB"
CUDA = "CUDA error: unspecified launch failure"


class Fleet:
    """A coordinator with workers that run commands."""

    def __init__(self, processes, folder, *args):
        self.processes, self.folder = processes, folder
        self.coordinator = Coordinator(processes, folder / "coordinator", *args)
        self.client = self.coordinator.client()
        self.manager = ft.create_recovery_manager(self.client)

    def worker(self, name, *args, **env):
        self.processes.start(
            binary(), "worker", "--name", name, "--coordinator", self.coordinator.url,
            "--state-dir", self.folder / name, *args, env={**os.environ, **env},
        )  # fmt: skip
        until(lambda: any(w["name"] == name for w in self.client.workers()), what=name)

    def run(self, task_id, line, **spec):
        self.client.submit({"id": task_id, "shell": line, **spec})

    def failed(self, task_id, line, **spec):
        self.run(task_id, line, **spec)
        end = self.client.wait(task_id, 120)
        assert end["state"] == "failed", end
        return end


def one_worker(processes, folder):
    fleet = Fleet(processes, folder)
    fleet.worker("w1")
    return fleet


def fails(text, code=1):
    return f"echo '{text}' >&2; exit {code}"
