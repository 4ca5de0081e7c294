"""A worker in one file, by the v1 JSON dialect: ``pip install websocket-client``, then

    python v1_worker.py http://127.0.0.1:7117 worker-1 [API key]

Tasks for it, with ``key=$(outlast keys local)`` where the coordinator is yours:
``curl -H "Authorization: Bearer $key" -d '{"call": {"function": "square", "args": {"n": 7}}}'
:7117/api/v1/tasks``.

It has no durable outbox, unlike Outlast's own workers: what is in its memory is lost with its
process, and its tasks are then run again. What it must do is small: keep each result until it is
acknowledged, say what it has in each heartbeat, and come back.
"""

import datetime
import json
import sys
import threading
import time
import traceback

import websocket


class Stopped(Exception):
    """The task was cancelled."""


class Worker:
    def __init__(self, url, worker_id, key=None, slots=2):
        base = url.rstrip("/").replace("http", "ws", 1)
        self.url = f"{base}/api/v1/worker/{worker_id}/ws"
        self.header = [f"Authorization: Bearer {key}"] if key else []
        self.worker_id, self.capabilities = worker_id, {"slots": slots, "hardware": ["cpu"]}
        self.lock = threading.RLock()
        self.link = None  # while there is one
        self.active = {}  # task id -> {"attempt", "cancel", "go"}
        self.states = {}  # task id -> state
        self.checkpoints = {}  # task id -> (checkpoint id, data), the newest
        self.results = {}  # task id -> message; until it is acknowledged

    # ---- the link ----------------------------------------------------------------------------

    def run(self):
        """Dials for ever."""
        delay = 1.0
        while True:
            try:
                link = websocket.create_connection(
                    self.url, header=self.header, timeout=20, enable_multithread=True
                )
                delay = 1.0
                self.serve(link)
            except (OSError, websocket.WebSocketException) as error:
                print(f"no link: {error}", file=sys.stderr)
            self.link = None
            time.sleep(delay)
            delay = min(delay * 2, 60.0)

    def serve(self, link):
        """Says what there is, then hears what is wanted. Silence of 20 s ends the link."""
        with self.lock:
            self.link = link
            self.say("registration", capabilities=self.capabilities)
            for result in self.results.values():
                self.send(result)
            for task_id in self.active:
                self.say("task_state", task_id=task_id, state=self.states.get(task_id, {}))
        threading.Thread(target=self.beat, args=(link,), daemon=True).start()
        while True:
            text = link.recv()
            if not text:
                raise ConnectionError("the coordinator closed the link")
            message = json.loads(text)
            hear = getattr(self, "on_" + message["type"], None)
            if hear:
                hear(message)

    def beat(self, link):
        sequence = 0
        while self.link is link:
            sequence += 1
            self.say("heartbeat", sequence=sequence, active_tasks=list(self.active))
            time.sleep(5)

    def say(self, kind, **fields):
        now = datetime.datetime.now(datetime.timezone.utc).isoformat()
        self.send({"type": kind, "worker_id": self.worker_id, "timestamp": now, **fields})

    def send(self, message):
        with self.lock:
            if self.link:
                try:
                    self.link.send(json.dumps(message))
                except (OSError, websocket.WebSocketException):
                    self.link = None  # what matters is said again on the next link

    # ---- what is wanted ----------------------------------------------------------------------

    def on_task_assignment(self, message):
        task_id, run = message["task_id"], {"attempt": message["attempt"], "cancel": False}
        run["go"] = threading.Event()
        run["go"].set()
        with self.lock:
            if task_id in self.active or task_id in self.results:
                return  # said again: it is here
            self.active[task_id] = run
            restored = message.get("checkpoint")
            if restored:
                self.checkpoints[task_id] = (restored["checkpoint_id"], restored["data"])
        threading.Thread(target=self.execute, args=(task_id, message, run), daemon=True).start()

    def on_heartbeat(self, message):
        for action in message.get("actions", []):
            for task_id in action.get("task_ids", []):
                if action["type"] == "cancel_tasks":
                    self.on_cancel_task({"task_id": task_id})
                elif task_id in self.results:
                    self.send(self.results[task_id])
            if action["type"] == "sync_state":
                self.on_state_request({})

    def on_task_result_ack(self, message):
        with self.lock:
            self.results.pop(message["task_id"], None)

    def on_cancel_task(self, message):
        with self.lock:
            run = self.active.pop(message["task_id"], None)
            if run:
                run["cancel"] = True
                run["go"].set()
                self.say("task_cancelled", task_id=message["task_id"])

    def on_pause_task(self, message):
        if message["task_id"] in self.active:
            self.active[message["task_id"]]["go"].clear()
            self.say("task_paused", task_id=message["task_id"])

    def on_resume_task(self, message):
        if message["task_id"] in self.active:
            self.active[message["task_id"]]["go"].set()
            self.say("task_resumed", task_id=message["task_id"])

    def on_checkpoint_request(self, message):
        task_id = message["task_id"]
        checkpoint_id, data = self.checkpoints.get(task_id, (None, None))
        if checkpoint_id and message.get("checkpoint_id") in (None, checkpoint_id):
            self.say("checkpoint_data", task_id=task_id, checkpoint_id=checkpoint_id, data=data)
        else:
            self.say("checkpoint_error", task_id=task_id, error="there is no such checkpoint")

    def on_state_request(self, message):
        wanted = message.get("task_id")
        for task_id in [wanted] if wanted else list(self.active):
            if task_id in self.states:
                self.say("task_state", task_id=task_id, state=self.states[task_id])
            elif wanted:
                self.say("state_error", task_id=task_id, error="it reported no state")

    def on_error(self, message):
        print(f"the coordinator says: {message['message']}", file=sys.stderr)

    # ---- tasks -------------------------------------------------------------------------------

    def execute(self, task_id, message, run):
        fields = {"task_id": task_id, "attempt": run["attempt"], "result": {}}
        try:
            function = getattr(self, "task_" + message.get("function", ""), None)
            if function is None:
                raise LookupError(f"this worker has no function {message.get('function')!r}")
            fields["result"] = function(task_id, message["config"])
        except Stopped:
            return
        except Exception as error:
            fields["error"] = {"message": str(error), "traceback": traceback.format_exc()}
        with self.lock:
            if self.active.pop(task_id, None) is None:
                return  # cancelled
            now = datetime.datetime.now(datetime.timezone.utc).isoformat()
            result = {"type": "task_result", "worker_id": self.worker_id, "timestamp": now, **fields}
            self.results[task_id] = result
            self.send(result)
            self.states.pop(task_id, None)

    def tell(self, task_id, **state):
        """Reports the progress; waits while the task is paused."""
        run = self.active.get(task_id)
        if run:
            run["go"].wait()
        if not run or run["cancel"]:
            raise Stopped
        self.states.setdefault(task_id, {}).update(state)
        self.say("task_state", task_id=task_id, state=state)

    def checkpoint(self, task_id, checkpoint_id, data):
        """The coordinator asks for the data, and keeps it for whoever goes on."""
        self.checkpoints[task_id] = (checkpoint_id, data)
        self.say("checkpoint", task_id=task_id, checkpoint_id=checkpoint_id)

    # The functions that tasks may name.

    def task_square(self, task_id, config):
        return {"square": config["n"] ** 2}

    def task_count(self, task_id, config):
        _, saved = self.checkpoints.get(task_id, (None, {"done": 0}))
        begun = saved["done"]
        for done in range(begun, config["to"]):
            time.sleep(config.get("pause", 0.1))
            self.tell(task_id, done=done + 1, progress=(done + 1) / config["to"])
            if (done + 1) % 10 == 0:
                self.checkpoint(task_id, f"{task_id}-{done + 1}", {"done": done + 1})
        return {"counted": config["to"], "from": begun}


if __name__ == "__main__":
    Worker(*sys.argv[1:4]).run()
