"""Clients that want this and that, hold it for a while, and know what they believe in."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.holds.belief import BOUND_S, Belief
from tests.holds.detector import Grant
from tests.holds.hosts import Ask, Daemon, Stream
from tests.parts.virtual_loop import Process, VirtualLoop
from zkside.core.queueing import Kind
from zkside.errors import Draining, HoldLost, SessionLost, SessionSuspended, Unavailable, ZksideError
from zkside.model.hold import HoldState, HoldUpdate, Reason, Terms
from zkside.model.operation import OPEN_ACL
from zkside.recipes.queueing import Bid

PERMITS = 2
_OWNED = (HoldState.HELD, HoldState.JEOPARDY)
_PASSING = (SessionSuspended, SessionLost, Draining, Unavailable)


@dataclass(frozen=True, slots=True)
class Wish:
    """What can be wanted."""

    path: str
    kind: Kind
    recipe: str = "lock"


WISHES = (
    Wish("/lock", Kind.LOCK),
    Wish("/read-write", Kind.READ),
    Wish("/read-write", Kind.WRITE),
    Wish("/semaphore", Kind.LEASE),
    Wish("/election", Kind.LATCH, "election"),
)


@dataclass(frozen=True, slots=True)
class Manners:
    """How clients behave."""

    wishes: tuple[Wish, ...] = WISHES
    hold_s: float = 12.0
    """At most: longer than a session can be silent. Most holds are much shorter."""
    rest_s: float = 1.0
    """At most, between one hold and the next bid."""
    is_steady: bool = False
    """Nobody gives up, hangs, or lets go in other ways than by Release."""
    silence_s: float = BOUND_S
    """For so long a client believes unanswered."""
    believes_longer_s: float = 0.0
    """Than it may, told or not."""


class Client:
    """One client of one host's daemon: from bid to bid, one at a time. Its methods run inside its own process."""

    def __init__(
        self, loop: VirtualLoop, name: str, daemon: Callable[[], Daemon], rng: random.Random, manners: Manners
    ) -> None:
        """`daemon` is the present one."""
        self.name = name
        self.process = Process(loop)
        self.grants: list[tuple[float, Grant]] = []
        """With the instant of asking."""
        self.wrong: list[str] = []
        """What no client should hear."""
        self.is_wanting = True
        """False: no further bids, please."""
        self._loop = loop
        self._daemon = daemon
        self._rng = rng
        self._manners = manners
        self.stopped_since_ns: int | None = None
        self._hung_from_ns = 0
        self.bid: _Bidding | None = None
        self.process.post(rng.uniform(0, manners.rest_s), self._begin)

    def stop(self) -> None:
        """SIGSTOP. It hears nothing and believes on."""
        self.process.stop()
        self.stopped_since_ns = self.stopped_since_ns or self._loop.now_ns

    def go_on(self) -> None:
        """SIGCONT. It hears what it has missed before it has any answer."""
        self.process.go_on()
        self.process.post(0.002, self._answered_again)

    def _answered_again(self) -> None:
        if not self.process.is_stopped:
            self.note()
            self.stopped_since_ns = None

    def proof_ns(self) -> int:
        """When its latest answered call was sent."""
        silences = (self.stopped_since_ns, self._daemon().silent_since_ns)
        return min([since_ns for since_ns in silences if since_ns is not None], default=self._loop.now_ns)

    def believes(self) -> bool:
        """Whether it believes now that it holds something."""
        return self.bid is not None and self.bid.belief.is_held()

    def note(self) -> None:
        """What silence means for the belief is about to change."""
        if self.bid is not None:
            self.bid.belief.note()

    def done(self, bid: _Bidding) -> None:
        if self.bid is bid:
            bid.belief.end()
            self.bid = None
            self.process.post(self._rng.uniform(0, self._manners.rest_s), self._begin)

    def _begin(self) -> None:
        if self.is_wanting:
            self.bid = _Bidding(self, self._loop, self._daemon, self._rng, self._manners)
            self.bid.ask()


class _Bidding:
    """One bid, from the request to the end of what was got."""

    def __init__(
        self,
        client: Client,
        loop: VirtualLoop,
        daemon: Callable[[], Daemon],
        rng: random.Random,
        manners: Manners,
    ) -> None:
        self._client = client
        self._loop = loop
        self._daemon = daemon
        self._rng = rng
        self._manners = manners
        self.wish = wish = rng.choice(manners.wishes)
        grace_s = rng.choice((0.0, 0.0, 1.0, 4.0))
        heartbeat_s = rng.choice((0.0, 0.0, 0.0, 1.0))
        wait_s = float("inf") if manners.is_steady or rng.random() < 0.8 else rng.uniform(0.0, 4.0)
        permits = PERMITS if wish.kind is Kind.LEASE else 1
        self._asking = Ask(
            Bid(wish.path, wish.kind, b"", OPEN_ACL, wait_s),
            Terms(wish.recipe, wish.path, grace_s, heartbeat_s, is_exclusive=True),
            permits,
        )
        self.belief = Belief(
            lambda: loop.now_ns,
            client.proof_ns,
            grace_s,
            bound_s=manners.silence_s,
            more_s=manners.believes_longer_s,
        )
        self._grant = Grant(client.name, wish.path, 0, permits, wish.kind.is_shared, 0, self.belief.segments)
        self._asked_s = loop.time()
        self._stream: Stream | None = None
        self._hold_id = ""
        self._heard: HoldUpdate | None = None
        self._is_leaving = False
        # Now and then the application hangs: its runtime goes on, its heartbeats do not come.
        self._hangs = not manners.is_steady and rng.random() < 0.2
        if not manners.is_steady and rng.random() < 0.15:
            client.process.post(rng.uniform(0.0, 2.0), self._give_up)

    def ask(self) -> None:
        """Open a stream: for the first time, or for what it has got already."""
        if self._is_leaving or self._client.bid is not self:
            return
        daemon = self._daemon()
        stream = Stream(daemon, self._client.process, lambda update, sent_ns: self._hear(stream, update, sent_ns))
        stream.on_end = lambda error: self._ended(stream, error)
        self._stream = stream
        if daemon.process.is_alive:
            daemon.open(self._asking, stream)
        else:
            stream.end(Unavailable("no daemon is there"))

    def _hear(self, stream: Stream, update: HoldUpdate, sent_ns: int) -> None:
        if stream is not self._stream:
            return
        self.belief.attach()
        before, self._heard = self._heard, update
        self._hold_id = update.hold_id
        if update.state in _OWNED:
            if not self._grant.token:
                self._grant.token, self._grant.granted_ns = update.fencing_token, sent_ns
                self._client.grants.append((self._asked_s, self._grant))
                self._asking = replace(self._asking, resume_token=update.resume_token)
                hold_s = self._manners.hold_s * self._rng.choice((0.02, 0.2, 1.0))
                self._client.process.post(self._rng.uniform(0.0, hold_s), self._let_go)
                self._beat()
            if update.fencing_token != self._grant.token:
                self._client.wrong.append(f"{self._grant} became {update.fencing_token}")
            self.belief.tell(update.lease_boottime_ns)
            if not update.lease_boottime_ns and update.reason is Reason.DRAINED:
                self._release()
        else:
            self.belief.tell(0)
            if update.state is HoldState.WAITING and before is not None and before.state in _OWNED:
                self._client.wrong.append(f"{self._grant} waits again")

    def _ended(self, stream: Stream, error: ZksideError | None) -> None:
        """The stream is over: with a last word, refused, or broken."""
        if stream is not self._stream:
            return
        self.belief.detach()
        self._stream = None
        if error is None:
            if self._heard is None or not self._heard.state.is_over or self._heard.reason is Reason.NONE:
                self._client.wrong.append(f"{self._grant}: a stream without a last word: {self._heard}")
            self._client.done(self)
        elif isinstance(error, HoldLost) and self._asking.resume_token:
            self._client.done(self)
        elif isinstance(error, _PASSING):
            self._client.process.post(self._rng.uniform(0.01, 0.6), self.ask)
        else:
            self._client.wrong.append(f"{self._grant} was refused: {error!r}")
            self._client.done(self)

    def _beat(self) -> None:
        heartbeat_s = self._asking.terms.heartbeat_timeout_s
        if heartbeat_s and not self._hangs and self._client.bid is self:
            self._daemon().heartbeat(self._hold_id)
            self._client.process.post(heartbeat_s / 3, self._beat)

    def _give_up(self) -> None:
        """Whatever it is doing."""
        if self._client.bid is self and not self._is_leaving:
            self._is_leaving = True
            self.belief.end()
            if self._stream is not None:
                self._stream.daemon.cancel(self._stream)
            self._client.done(self)

    def _let_go(self) -> None:
        if not self._manners.is_steady and self._rng.random() < 0.3:
            self._give_up()
        else:
            self._release()

    def _release(self) -> None:
        if self._client.bid is not self or self._is_leaving:
            return
        self._is_leaving = True
        self.belief.end()
        self._daemon().release(self._hold_id, self._client.process, self._released)
        # Longer than this no call takes.
        self._client.process.post(2.0, self._released)

    def _released(self) -> None:
        if self._stream is not None:
            self._stream.daemon.cancel(self._stream)
            self._stream = None
        self._client.done(self)
