"""A program that wants to lead, with kazoo's Election: `python -m tests.safety.kazoo_candidate HOSTS PATH TIMEOUT-S`.

One election, and what three programs with it would believe, a line for every change
(`RULE true|false NANOSECONDS-OF-CLOCK_BOOTTIME`):

* kazoo-suspended: leads from the call of its function until a listener hears SUSPENDED or LOST, as kazoo's
  documentation recommends for work that must not go on unawares;
* kazoo-lost: until a listener hears LOST;
* kazoo-plain: as in the documentation's example, without a listener: until the function returns, which it
  does not. `Lock.is_acquired` says the same.

Ends with its standard input.
"""

from __future__ import annotations

import sys
import threading
import time

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.protocol.states import KazooState

RULES = ("kazoo-suspended", "kazoo-lost", "kazoo-plain")
ENDS = {KazooState.SUSPENDED: RULES[:1], KazooState.LOST: RULES[:2]}


class Candidate:
    def __init__(self, hosts: str, path: str, timeout_s: float) -> None:
        self._believed: set[str] = set()
        self._client = KazooClient(hosts, timeout=timeout_s)
        self._client.add_listener(self._heard)
        self._client.start(timeout=30)
        self._election = self._client.Election(path)

    def run(self) -> None:
        try:
            self._election.run(self._lead)
        except KazooException as error:
            # As a waiter in a session that is lost; a program would begin again.
            print(f"{type(error).__name__}: {error}", file=sys.stderr)

    def _lead(self) -> None:
        for rule in RULES:
            self._say(rule, believes=True)
        threading.Event().wait()

    def _heard(self, state: str) -> None:
        for rule in ENDS.get(state, ()):
            if rule in self._believed:
                self._say(rule, believes=False)

    def _say(self, rule: str, *, believes: bool) -> None:
        at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        (self._believed.add if believes else self._believed.discard)(rule)
        print(rule, str(believes).lower(), at_ns, flush=True)


if __name__ == "__main__":
    candidate = Candidate(sys.argv[1], sys.argv[2], float(sys.argv[3]))
    threading.Thread(target=candidate.run, daemon=True).start()
    sys.stdin.read()
