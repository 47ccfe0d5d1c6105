"""python -m tests.soak.abuse KIND ADDRESS SECONDS SEED ZOOKEEPER_PID: one kind of abuse; prints JSON of what it did."""

from __future__ import annotations

import json
import os
import random
import sys
import time

from tests.soak.abuse import batches, carries, connections, headers, pauses, readers, resets
from tests.soak.abuse.task import Task

KINDS = {
    module.__name__.rpartition(".")[2]: module.run
    for module in (resets, headers, batches, carries, readers, connections, pauses)
}
NICE = 10
"""The daemon, ZooKeeper and the well-behaved client come first: on few cores it is not the scheduler that is judged."""

if __name__ == "__main__":
    kind, address, seconds, seed, zookeeper_pid = sys.argv[1:]
    os.nice(NICE)
    task = Task(address, time.monotonic() + float(seconds), random.Random(f"{kind} {seed}"), int(zookeeper_pid))
    try:
        KINDS[kind](task)
    finally:
        print(json.dumps({"kind": kind, "done": dict(task.done)}), flush=True)
