"""A job that runs once over all hosts, without asyncio: whoever comes first does it, the others go home.

python examples/python/nightly.py & python examples/python/nightly.py
"""

import time

from zkside.client.sync import Client
from zkside.errors import WaitTimeout

with Client() as client:
    try:
        with client.lock("/examples/nightly", wait_timeout_s=0) as held:
            for step in range(3):
                if not held.is_held():
                    raise SystemExit("the lock was lost: stop")
                print("step", step, "with fencing token", held.fencing_token)
                time.sleep(0.1)
            print("done")
    except WaitTimeout:
        print("somebody else is at it")
