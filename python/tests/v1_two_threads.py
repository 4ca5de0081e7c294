"""A v1 client of the replaced system's kind, written from a description of how those behave:

    python v1_two_threads.py URL WORKER_ID [KEY]

One thread holds a WebSocket (websocket-client's WebSocketApp) and dials again whenever that one's
``on_close`` or ``on_error`` runs, after a delay that doubles. Another beats every 5 s and, after 15 s
without an answer, calls ``reconnect()``, which opens a second connection while the first is still
there; either connection's handlers dial again. It adds ``/ws/`` to its address, and may leave
``{worker_id}`` in it. What it writes is a line per connection, and per task that it ran.
"""

import json
import os
import random
import sys
import threading
import time

import websocket

BEAT, SILENCE, CHECK = 5.0, 15.0, 0.5
FIRST, LONGEST, JITTER = 1.0, 60.0, 0.2


def log(text):
    print(f"{time.time():.3f} {text}", flush=True)


class Client:
    def __init__(self, url, worker_id, key=None):
        base = url.rstrip("/").replace("http", "ws", 1)
        place = os.environ.get("V1_PLACE", "ID/ws/")
        self.url = f"{base}/api/v1/worker/{place.replace('ID', worker_id)}"
        self.header = [f"Authorization: Bearer {key}"] if key else []
        self.worker_id = worker_id
        self.capabilities = {"hardware": ["cpu"], **json.loads(os.environ.get("V1_CAPS", "{}"))}
        self.lock = threading.RLock()
        self.ws = None  # the newest
        self.failures, self.answered, self.sequence = 0, time.monotonic(), 0
        self.tasks, self.results, self.checkpoints, self.states = {}, {}, {}, {}

    # ---- connections -------------------------------------------------------------------------

    def connect(self):
        """Opens a connection, in a thread of its own. Whatever there was stays."""
        app = websocket.WebSocketApp(
            self.url,
            header=self.header,
            on_open=self.on_open,
            on_message=self.on_message,
            on_error=lambda ws, error: self.on_end(ws, f"error {error!r:.80}"),
            on_close=lambda ws, code, reason: self.on_end(ws, f"close {code} {reason!r:.80}"),
        )
        app.ended = False
        self.ws = app
        threading.Thread(target=app.run_forever, daemon=True).start()

    reconnect = connect

    def on_open(self, ws):
        log("CONNECTED")
        self.failures, self.answered = 0, time.monotonic()
        self.say("registration", capabilities=self.capabilities)
        with self.lock:
            kept = list(self.results.values())
            states = dict(self.states)
        for result in kept:
            self.send(result)
        for task_id, state in states.items():
            self.say("task_state", task_id=task_id, state=state)

    def on_end(self, ws, why):
        with self.lock:
            if ws.ended:  # its other handler dialled already
                return
            ws.ended = True
        log(f"ENDED {why}")
        delay = min(FIRST * 2**self.failures, LONGEST) * random.uniform(1 - JITTER, 1 + JITTER)
        self.failures += 1
        threading.Timer(delay, self.connect).start()

    def watch(self):
        beaten = 0.0
        while True:
            now = time.monotonic()
            if now - self.answered > SILENCE:
                log("SILENT")
                self.answered = now
                self.reconnect()
            elif now - beaten >= BEAT:
                beaten = now
                self.sequence += 1
                with self.lock:
                    names = list(self.tasks)
                self.say("heartbeat", sequence=self.sequence, active_tasks=names)
            time.sleep(CHECK)

    def say(self, kind, **fields):
        self.send({"type": kind, "worker_id": self.worker_id, "timestamp": time.ctime(), **fields})

    def send(self, message):
        """On the newest connection; what that cannot send is said again on the next, or never."""
        try:
            self.ws.send(json.dumps(message))
        except Exception as error:
            log(f"UNSENT {message['type']} {error!r:.60}")

    # ---- messages ----------------------------------------------------------------------------

    def on_message(self, ws, text):
        message = json.loads(text)
        kind, task_id = message["type"], message.get("task_id")
        if kind == "heartbeat":
            self.answered = time.monotonic()
            for action in message.get("actions", []):
                for named in action.get("task_ids", []):
                    if action["type"] == "cancel_tasks":
                        self.tasks.pop(named, None)
                    elif named in self.results:
                        self.send(self.results[named])
        elif kind == "task_assignment":
            with self.lock:
                if task_id in self.tasks or task_id in self.results:
                    return
                self.tasks[task_id] = message["config"]
            args = (task_id, message["config"])
            threading.Thread(target=self.run, args=args, daemon=True).start()
        elif kind == "task_result_ack":
            with self.lock:
                self.results.pop(task_id, None)
        elif kind == "cancel_task":
            self.tasks.pop(task_id, None)
            self.say("task_cancelled", task_id=task_id)
        elif kind == "checkpoint_request":
            found = self.checkpoints.get(task_id)
            if found:
                self.say("checkpoint_data", task_id=task_id, checkpoint_id=found[0], data=found[1])
            else:
                self.say("checkpoint_error", task_id=task_id, error="none")
        elif kind == "state_request":
            for task in [task_id] if task_id else list(self.states):
                if task in self.states:
                    self.say("task_state", task_id=task, state=self.states[task])
                else:
                    self.say("state_error", task_id=task, error="none")
        elif kind not in ("welcome", "registration_ack"):
            log(f"WARNING unknown message type: {kind}")

    # ---- tasks -------------------------------------------------------------------------------

    def run(self, task_id, config):
        log(f"RUNS {task_id} {json.dumps(config)}")
        if config.get("accepts"):  # the result comes later, by another way
            self.finish(task_id, {"status": "running"}, keep=config["accepts"] == "named")
        steps = config.get("steps", 1)
        for step in range(steps):
            time.sleep(config.get("pause", 0.1))
            self.states[task_id] = {"step": step + 1, "progress": 100 * (step + 1) / steps}
            if config.get("tells"):
                self.say("task_state", task_id=task_id, state=self.states[task_id])
        self.states.pop(task_id, None)
        self.finish(task_id, {"steps": steps, "pid": os.getpid()})

    def finish(self, task_id, result, keep=False):
        message = {"type": "task_result", "worker_id": self.worker_id, "timestamp": time.ctime(),
                   "task_id": task_id, "result": result}
        with self.lock:
            if not keep:
                self.tasks.pop(task_id, None)
            self.results[task_id] = message
        self.send(message)


if __name__ == "__main__":
    client = Client(*sys.argv[1:4])
    client.connect()
    client.watch()
