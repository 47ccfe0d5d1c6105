"""What the journal keeps, and what it makes of files that are not as it left them."""

from __future__ import annotations

import json
import logging
import os
import resource
import stat
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from zkside.errors import StartError, Unavailable
from zkside.model.hold import HoldRow
from zkside.zk.journal import Journal
from zkside.zk.port import Ticket

TICKET = Ticket(0x1000A, b"0123456789abcdef", 42)
ROW = HoldRow("h1", "ephemeral", "/a/b", 7, "secret-token", 2.5, {"mode": "x", "größe": "ü\n"})


def journal_file(state_dir: Path) -> Path:
    return state_dir / "session.journal"


def test_a_new_directory_has_an_empty_journal(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "state")
    assert (journal.epoch, journal.ticket, journal.holds(), journal.owned()) == (0, None, (), frozenset())
    journal.close()


def test_everything_is_there_after_the_process_was_killed(tmp_path: Path) -> None:
    """S5: nothing is closed or flushed at the end."""
    journal = Journal.open(tmp_path)
    journal.begin(3, TICKET, 10.0)
    journal.put_hold(ROW)
    journal.put_hold(HoldRow("h2", "lock", "/c", 8, "t", 0.0))
    journal.drop_hold("h2")
    journal.own("/daemon")
    journal.own("/other")
    journal.disown("/other")
    journal.note_zxid(99)
    os.close(journal._lock)
    after = Journal.open(tmp_path)
    assert after.epoch == 3
    assert after.ticket == Ticket(TICKET.session_id, TICKET.password, 99)
    assert after.timeout_s == 10.0
    assert after.holds() == (ROW,)
    assert after.owned() == {"/daemon"}
    assert after.known_paths() == {"/a/b", "/daemon"}
    after.close()


EARLIER = b"""\
e3e7f76e {"format":1,"cluster":"127.0.0.1:22740/2086909073742036242","epoch":1,"session":{"id":72059368763555841,\
"password":"7158ed84338469bf61379ad068eb917c","zxid":0,"timeout_s":20.0}}
7ed1fb48 {"hold":{"hold_id":"7492b107d7174041","recipe":"ephemeral","path":"/held/node","czxid":6,\
"resume_token":"gwcbKm97biCjDKcuayyO2CmqQHbKTJW9","reconnect_grace_s":0.0,\
"data":{"requested_path":"/held/node","heartbeat_timeout_s":"0.0"}}}
fa9696be {"zxid":8}
"""
"""Written by the first daemon that kept one (format 1). Every later version has to read it: never change it."""


def test_a_journal_of_the_first_daemon_is_read(tmp_path: Path) -> None:
    """S5 over versions."""
    journal_file(tmp_path).write_bytes(EARLIER)
    journal = Journal.open(tmp_path, "127.0.0.1:22740/2086909073742036242")
    assert journal.epoch == 1
    assert journal.timeout_s == 20.0
    assert journal.ticket is not None
    assert (journal.ticket.session_id, journal.ticket.last_zxid) == (72059368763555841, 8)
    (row,) = journal.holds()
    assert (row.path, row.czxid, row.terms.requested_path, row.terms.is_exclusive) == ("/held/node", 6, row.path, False)
    journal.close()


def line(text: str) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(text.encode()), text.encode())


def test_what_a_later_version_adds_to_a_row_is_passed_over(tmp_path: Path) -> None:
    """S5 after a downgrade."""
    journal = Journal.open(tmp_path)
    journal.begin(3, TICKET, 10.0)
    journal.put_hold(ROW)
    journal.close()
    head, row = journal_file(tmp_path).read_text().splitlines()
    entry = json.loads(row.partition(" ")[2])
    entry["hold"]["colour"] = "blue"
    journal_file(tmp_path).write_bytes(head.encode() + b"\n" + line(json.dumps(entry)))
    after = Journal.open(tmp_path)
    assert (after.ticket, after.holds()) == (TICKET, (ROW,))
    after.close()


def test_a_journal_of_a_later_format_is_set_aside_and_its_epoch_goes_on(tmp_path: Path) -> None:
    """S4, S5: nothing of it is believed, and it is there for the version that can read it."""
    later = line('{"format":2,"cluster":"","epoch":7,"something":"else"}') + line('{"new":"kind"}')
    journal_file(tmp_path).write_bytes(later)
    journal = Journal.open(tmp_path)
    assert (journal.epoch, journal.ticket, journal.holds()) == (7, None, ())
    (aside,) = tmp_path.glob("session.journal.2*")
    assert aside.read_bytes() == later
    journal.close()


def test_a_new_epoch_forgets_what_the_one_before_owned(tmp_path: Path) -> None:
    """S4."""
    journal = Journal.open(tmp_path)
    journal.begin(1, TICKET, 10.0)
    journal.put_hold(ROW)
    journal.own("/daemon")
    journal.begin(2, TICKET, 10.0)
    assert (journal.epoch, journal.known_paths()) == (2, frozenset())
    journal.close()


def test_a_session_that_is_over_is_never_taken_up_again(tmp_path: Path) -> None:
    """S4: also when the daemon is killed right after LOST."""
    journal = Journal.open(tmp_path)
    journal.begin(1, TICKET, 10.0)
    journal.put_hold(ROW)
    journal.end()
    journal.close()
    after = Journal.open(tmp_path)
    assert (after.epoch, after.ticket) == (1, None)
    after.close()


def test_the_secrets_in_it_are_for_the_owner_alone(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    journal = Journal.open(state_dir)
    journal.begin(1, TICKET, 10.0)
    assert stat.S_IMODE(journal_file(state_dir).stat().st_mode) == 0o600
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    assert "secret-token" not in repr(ROW)
    journal.close()


def test_two_daemons_never_share_a_directory(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    with pytest.raises(StartError, match=f"in use by another daemon .pid {os.getpid()}."):
        Journal.open(tmp_path)
    journal.close()
    Journal.open(tmp_path).close()


def test_a_directory_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot be used"):
        Journal.open(tmp_path / "file")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: b"not a journal\n",
        lambda text: b"\x00" * len(text),
        lambda text: text.replace(b"ephemeral", b"EPHEMERAL"),
        lambda text: text.replace(b"\n", b"", 1),
        lambda text: b"00000000 {}\n" + text,
    ],
)
def test_a_damaged_journal_is_set_aside_and_the_daemon_starts_anew(
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal = Journal.open(tmp_path)
    journal.begin(5, TICKET, 10.0)
    journal.put_hold(ROW)
    journal.put_hold(ROW)
    journal.close()
    file = journal_file(tmp_path)
    text = file.read_bytes()
    damaged = damage(text)
    file.write_bytes(damaged)
    with caplog.at_level(logging.WARNING, "zkside"):
        after = Journal.open(tmp_path)
    assert (after.ticket, after.holds()) == (None, ())
    if damaged:
        (aside,) = tmp_path.glob("session.journal.2*")
        assert aside.read_bytes() == damaged
        assert str(aside) in caplog.text
    after.begin(after.epoch + 1, TICKET, 10.0)
    after.close()


def test_a_damaged_journal_still_tells_its_epoch_if_that_can_be_read(tmp_path: Path) -> None:
    """S4: epochs only grow."""
    journal = Journal.open(tmp_path)
    journal.begin(5, TICKET, 10.0)
    journal.put_hold(ROW)
    journal.put_hold(ROW)
    journal.close()
    file = journal_file(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"ephemeral", b"EPHEMERAL", 1))
    after = Journal.open(tmp_path)
    assert (after.epoch, after.ticket) == (5, None)
    after.close()


@pytest.mark.parametrize(
    ("then", "now", "is_same"),
    [
        ("a:1,b:2", "b:2,c:3", True),
        ("a:1,b:2/x", "b:2/x", True),
        ("a:1", "b:1", False),
        ("a:1/x", "a:1/y", False),
        ("a:1", "a:1/x", False),
    ],
)
def test_a_journal_of_another_ensemble_or_chroot_is_set_aside(
    tmp_path: Path, then: str, now: str, is_same: bool
) -> None:
    journal = Journal.open(tmp_path, then)
    journal.begin(5, TICKET, 10.0)
    journal.close()
    after = Journal.open(tmp_path, now)
    assert (after.ticket is not None) == is_same
    assert after.epoch == 5
    after.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 400))
def test_a_line_that_was_being_written_when_the_daemon_died_is_ignored(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    state_dir = tmp_path_factory.mktemp("state")
    journal = Journal.open(state_dir)
    journal.begin(1, TICKET, 10.0)
    size = journal_file(state_dir).stat().st_size
    journal.put_hold(ROW)
    journal.close()
    whole = journal_file(state_dir).stat().st_size
    kept = min(size + cut, whole)
    os.truncate(journal_file(state_dir), kept)
    after = Journal.open(state_dir)
    assert after.ticket == TICKET
    assert after.holds() == ((ROW,) if kept == whole else ())
    after.close()


def test_a_line_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.begin(1, TICKET, 10.0)
    journal.put_hold(ROW)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.statistics().size_bytes + 20, limits[1]))
    try:
        with pytest.raises(Unavailable, match="nothing was changed"):
            journal.put_hold(HoldRow("h2", "lock", "/c", 8, "t", 0.0))
        with pytest.raises(Unavailable, match="nothing was changed"):
            journal.drop_hold(ROW.hold_id)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert journal.holds() == (ROW,)
    assert journal.statistics().errors == 2
    journal.put_hold(HoldRow("h3", "lock", "/d", 9, "t", 0.0))
    journal.close()
    after = Journal.open(tmp_path)
    assert [row.hold_id for row in after.holds()] == ["h1", "h3"]
    after.close()


def test_the_file_stays_in_proportion_to_what_it_holds(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.begin(1, TICKET, 10.0)
    for number in range(5000):
        journal.put_hold(HoldRow(f"h{number}", "lock", f"/l{number}", number, "t", 0.0))
        journal.drop_hold(f"h{number}")
    assert journal.statistics().lines <= 1010
    assert journal_file(tmp_path).stat().st_size == journal.statistics().size_bytes < 300_000
    journal.close()


def test_a_journal_in_memory_keeps_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal()
    journal.begin(1, TICKET, 10.0)
    journal.put_hold(ROW)
    assert journal.holds() == (ROW,)
    journal.close()
    assert list(tmp_path.iterdir()) == []


class AgainstADict(RuleBasedStateMachine):
    """The journal against the plain values that it should remember, through any number of restarts."""

    @initialize()
    def start(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.journal = Journal.open(Path(self.directory.name))
        self.epoch = 0
        self.is_over = True
        self.holds: dict[str, HoldRow] = {}
        self.owned: set[str] = set()

    @rule()
    def begin(self) -> None:
        self.epoch += 1
        self.is_over = False
        self.holds, self.owned = {}, set()
        self.journal.begin(self.epoch, TICKET, 5.0)

    @rule(hold_id=st.sampled_from("abc"), path=st.text(max_size=5), czxid=st.integers(0, 2**62))
    def put(self, hold_id: str, path: str, czxid: int) -> None:
        row = HoldRow(hold_id, "lock", path, czxid, "t", 1.5, {"k": path})
        self.journal.put_hold(row)
        self.holds[hold_id] = row

    @rule(hold_id=st.sampled_from("abc"))
    def drop(self, hold_id: str) -> None:
        self.journal.drop_hold(hold_id)
        self.holds.pop(hold_id, None)

    @rule(path=st.sampled_from(["/x", "/y"]), keep=st.booleans())
    def own(self, path: str, keep: bool) -> None:
        if keep:
            self.journal.own(path)
            self.owned.add(path)
        else:
            self.journal.disown(path)
            self.owned.discard(path)

    @rule()
    def end(self) -> None:
        self.journal.end()
        self.is_over = True

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.journal = Journal.open(Path(self.directory.name))

    @invariant()
    def remembers(self) -> None:
        if hasattr(self, "journal"):
            assert self.journal.epoch == self.epoch
            assert (self.journal.ticket is None) == self.is_over
            assert {row.hold_id: row for row in self.journal.holds()} == self.holds
            assert self.journal.owned() == self.owned

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            self.directory.cleanup()


TestTheJournalRemembersWhatItWasTold = AgainstADict.TestCase
TestTheJournalRemembersWhatItWasTold.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
