"""A process that opens calls and resets them: `python -m tests.rpc.flooding ADDRESS SECONDS RATE [METHOD]`; a rate a
second.

Prints how many it sent.
"""

from __future__ import annotations

import sys
import time

from tests.parts.http2 import Http2

BATCH = 200


def flood(address: str, seconds: float, rate: int, *method: str) -> int:
    sent = 0
    with Http2(address, *method) as connection:
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            if sent + BATCH <= passed * rate:
                connection.open_and_reset(BATCH)
                sent += BATCH
            else:
                time.sleep(0.001)
    return sent


if __name__ == "__main__":
    print(flood(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
