"""A worker of the replaced system, as its guide prints it, made durable by one import.

    python guide_worker.py COORDINATOR_URL LEDGER

Everything between the lines is printed in the guide, unedited; the rest are stand-ins for what the
guide leaves to its reader. Each step is noted in the ledger, so that the demo can count what was run
again.
"""

import os
import sys
import time

import outlast.compat.duckdb_api  # noqa: F401, the names of the replaced system

LEDGER = open(sys.argv[2], "a", buffering=1)


class Model:
    """Adds up what it is given, as slowly as a small training step."""

    def __init__(self):
        self.sum = 0

    def __call__(self, batch):
        time.sleep(0.02)
        self.sum += batch
        return self.sum

    def state_dict(self):
        return {"sum": self.sum}

    def load_state_dict(self, state):
        self.sum = state["sum"]


def load_model(name):
    return Model()


def load_dataset(name):
    return range(1000)


def calculate_metrics(output, batch):
    LEDGER.write(f"{os.getpid()} {batch}\n")
    return {"sum": output}


# ---- as printed: Custom Configuration ----
# Custom configuration in worker class
class MyWorkerImplementation:
    def __init__(self, worker_id, coordinator_url, api_key, capabilities):
        self.worker_id = worker_id
        self.coordinator_url = coordinator_url
        self.api_key = api_key
        self.capabilities = capabilities
        
        # Custom reconnection configuration
        self.reconnection_config = {
            "heartbeat_interval": 3.0,            # Heartbeat every 3 seconds
            "initial_reconnect_delay": 0.5,       # Start with 0.5 second delay
            "max_reconnect_delay": 30.0,          # Maximum 30 second delay
            "reconnect_jitter": 0.1,              # 10% jitter for reconnection timing
            "heartbeat_timeout": 10.0,            # Reconnect if no heartbeat for 10 seconds
            "max_reconnect_attempts": 0,          # Unlimited reconnection attempts
            "checkpoint_interval": 600,           # Checkpoint every 10 minutes
            "connection_health_threshold": 0.8,   # Connection stability threshold
            "message_retry_count": 5              # Retry messages 5 times
        }

# ---- as printed: Task Execution with Checkpointing ----
# In worker implementation
def execute_task(self, task_id, task_config):
    # Initialize task
    model = load_model(task_config["model"])
    dataset = load_dataset(task_config["dataset"])
    total_steps = len(dataset)
    completed_steps = 0
    
    # Check for existing checkpoint
    checkpoint = self.reconnection_plugin.get_latest_checkpoint(task_id)
    if checkpoint:
        # Resume from checkpoint
        completed_steps = checkpoint.get("completed_steps", 0)
        model.load_state_dict(checkpoint.get("model_state", {}))
        
    # Update task state
    self.reconnection_plugin.update_task_state(task_id, {
        "status": "running",
        "total_steps": total_steps,
        "completed_steps": completed_steps
    })
    
    # Execute task with periodic checkpointing
    for step in range(completed_steps, total_steps):
        # Process step
        batch = dataset[step]
        output = model(batch)
        metrics = calculate_metrics(output, batch)
        
        # Update progress
        completed_steps = step + 1
        self.reconnection_plugin.update_task_state(task_id, {
            "completed_steps": completed_steps,
            "progress": completed_steps / total_steps,
            "current_metrics": metrics
        })
        
        # Create checkpoint every 100 steps
        if step % 100 == 0:
            checkpoint_data = {
                "model_state": model.state_dict(),
                "completed_steps": completed_steps,
                "metrics": metrics
            }
            self.reconnection_plugin.create_checkpoint(task_id, checkpoint_data)
    
    # Return final result
    return {
        "completed_steps": completed_steps,
        "final_metrics": metrics
    }


# ---- stand-ins again ----
MyWorkerImplementation.execute_task = execute_task


def main():
    from duckdb_api.distributed_testing.worker_reconnection import (
        create_worker_reconnection_plugin,
    )

    # The guide's Basic Integration, with the address that was given.
    worker = MyWorkerImplementation(
        worker_id="worker-123",
        coordinator_url=sys.argv[1],
        api_key=None,
        capabilities={"hardware": ["cpu"]},
    )
    reconnection_plugin = create_worker_reconnection_plugin(worker)
    try:
        while True:
            time.sleep(1)
    finally:
        reconnection_plugin.stop()


if __name__ == "__main__":
    main()
