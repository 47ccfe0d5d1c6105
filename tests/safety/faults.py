"""Which faults come when: a schedule made from a seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Fault(Enum):
    KILL_SERVER = "a server is killed"
    KILL_LEADER = "the leader is killed"
    STOP_SERVER = "a server is stopped"
    CUT_FOLLOWER = "a follower is cut off, with a host"
    CUT_LEADER = "the leader is cut off, with a host"
    RESET_LEADER = "the leader is cut off, with a host, and its followers notice at once"
    HALF_OPEN = "a host's links to the servers are half-open"
    STOP_DAEMON = "a daemon is stopped"
    KILL_DAEMON = "a daemon is killed"
    STOP_WORKER = "a client is stopped"
    KILL_WORKER = "a client is killed"


OF_SERVERS = (Fault.KILL_SERVER, Fault.KILL_LEADER, Fault.STOP_SERVER, Fault.CUT_FOLLOWER, Fault.CUT_LEADER)
OF_HOSTS = (Fault.HALF_OPEN, Fault.STOP_DAEMON, Fault.KILL_DAEMON, Fault.STOP_WORKER, Fault.KILL_WORKER)
PARTITIONS = (Fault.CUT_FOLLOWER, Fault.CUT_LEADER, Fault.RESET_LEADER)

# Shorter than what anybody notices, about the session's timeout (3 s), and long after it.
OTHERS_S = ((0.1, 1.5), (1.5, 4.0), (4.0, 9.0))
PARTITION_S = ((1.5, 4.0), (4.0, 7.0), (7.0, 11.0))


@dataclass(frozen=True, slots=True)
class Event:
    """`pick` says to whom it happens, where there is a choice; an odd one: to the leader of the election."""

    at_s: float
    for_s: float
    fault: Fault
    pick: int

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} s, for {self.for_s:4.1f} s: {self.fault.value} ({self.pick})"


def schedule(seed: int, *, length_s: float, servers: Sequence[Fault] = OF_SERVERS) -> list[Event]:
    """What happens in `length_s`, by its beginning: one fault of a server and one of a host at a time.

    None comes again before all have come. The same seed gives the same events; which server leads when is
    ZooKeeper's affair.
    """
    chance = random.Random(seed)
    events = [*_lane(chance, servers, length_s), *_lane(chance, OF_HOSTS, length_s)]
    return sorted(events, key=lambda event: event.at_s)


def _lane(chance: random.Random, faults: Sequence[Fault], length_s: float) -> list[Event]:
    events: list[Event] = []
    bag: list[Fault] = []
    at_s = chance.uniform(1.0, 3.0)
    while True:
        bag = bag or chance.sample(list(faults), len(faults))
        fault = bag.pop()
        for_s = chance.uniform(*chance.choice(PARTITION_S if fault in PARTITIONS else OTHERS_S))
        if at_s + for_s > length_s:
            return events
        events.append(Event(at_s, for_s, fault, chance.randrange(1 << 16)))
        at_s += for_s + chance.uniform(0.3, 3.0)
