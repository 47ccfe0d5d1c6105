"""A state directory that was copied, altered, removed, or is full."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.session.test_journal import ROW, TICKET, journal_file
from zkside.errors import StartError, Unavailable
from zkside.model.hold import HoldRow
from zkside.zk.journal import Journal
from zkside.zk.port import Ticket


def written(state_dir: Path, epoch: int = 3) -> Journal:
    """A journal with a session and a hold, still open."""
    journal = Journal.open(state_dir)
    journal.begin(epoch, TICKET, 10.0)
    journal.put_hold(ROW)
    return journal


@contextmanager
def no_larger_than(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond so many bytes: as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def fill(file: Path) -> None:
    """Until there is no room for another page."""
    with open(file, "ab", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(b"x" * 4096)


@pytest.mark.parametrize("is_open", [True, False])
def test_a_copy_is_not_believed_and_the_original_is(
    tmp_path: Path, is_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """H1, S5: two daemons would take one session from each other. Epochs and zxids go on all the same."""
    journal = written(tmp_path / "a")
    if not is_open:
        journal.close()
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copy2)
    copy = Journal.open(tmp_path / "b")
    assert (copy.ticket, copy.holds(), copy.known_paths()) == (None, (), frozenset())
    assert (copy.epoch, copy.zxid, copy.statistics().set_aside) == (3, TICKET.last_zxid, 1)
    assert "the journal is a copy" in caplog.text
    (aside,) = (tmp_path / "b").glob("session.journal.2*")
    assert aside.read_bytes() == journal_file(tmp_path / "a").read_bytes()
    copy.begin(4, TICKET, 10.0)
    copy.close()
    journal.close()
    for directory, epoch in (("a", 3), ("b", 4)):
        again = Journal.open(tmp_path / directory)
        assert (again.ticket, again.epoch) == (TICKET, epoch), "each has its own from now on"
        again.close()


def test_an_older_copy_that_is_put_back_is_not_believed(tmp_path: Path) -> None:
    """S5: it knows nothing of what was held since, and would have that deleted."""
    journal = written(tmp_path)
    shutil.copy2(journal_file(tmp_path), tmp_path / "backup")
    journal.put_hold(HoldRow("h2", "lock", "/c", 8, "t", 0.0))
    journal.close()
    os.replace(tmp_path / "backup", journal_file(tmp_path))
    after = Journal.open(tmp_path)
    assert (after.ticket, after.holds()) == (None, ())
    after.close()


def test_a_directory_that_was_renamed_is_the_same(tmp_path: Path) -> None:
    """S5."""
    written(tmp_path / "a").close()
    (tmp_path / "a").rename(tmp_path / "b")
    after = Journal.open(tmp_path / "b")
    assert (after.ticket, after.holds()) == (TICKET, (ROW,))
    after.close()


@settings(max_examples=100, deadline=None)
@example(at=5, bit=5)  # a letter of the checksum becomes a capital
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_bit_of_it_can_be_flipped_unseen(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    """S5: of the session's id and password, of the holds, of what ends a line."""
    state_dir = tmp_path_factory.mktemp("state")
    written(state_dir).close()
    file = journal_file(state_dir)
    text = bytearray(file.read_bytes())
    text[at % len(text)] ^= 1 << bit
    file.write_bytes(text)
    after = Journal.open(state_dir)
    assert (after.ticket, after.holds(), after.statistics().set_aside) == (None, (), 1)
    after.close()


def test_an_empty_journal_is_set_aside(tmp_path: Path) -> None:
    """S5: there is none that is empty, since its head comes with it."""
    journal_file(tmp_path).write_bytes(b"")
    journal = Journal.open(tmp_path)
    assert journal.statistics().set_aside == 1
    journal.close()


def test_a_directory_that_was_removed_is_made_anew_with_all_that_was_in_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """S5: and a second daemon is refused as before."""
    state_dir = tmp_path / "state"
    journal = written(state_dir)
    shutil.rmtree(state_dir)
    journal.look_after()
    assert journal.statistics().remade == 1
    assert "was removed while the daemon ran" in caplog.text
    journal.put_hold(HoldRow("h2", "lock", "/c", 8, "t", 0.0))
    with pytest.raises(StartError, match="in use by another daemon"):
        Journal.open(state_dir)
    journal.look_after()
    journal.close()
    after = Journal.open(state_dir)
    assert (after.ticket, [row.hold_id for row in after.holds()]) == (TICKET, ["h1", "h2"])
    assert journal.statistics().remade == 1
    after.close()


@pytest.mark.parametrize("name", ["session.journal", "session.lock"])
def test_a_single_file_that_was_removed_or_replaced_is_made_anew(tmp_path: Path, name: str) -> None:
    """S5."""
    journal = written(tmp_path)
    (tmp_path / name).unlink()
    journal.look_after()
    (tmp_path / "other").write_bytes(b"something else")
    os.replace(tmp_path / "other", tmp_path / name)
    journal.look_after()
    assert journal.statistics().remade == 2
    with pytest.raises(StartError):
        Journal.open(tmp_path)
    journal.close()
    after = Journal.open(tmp_path)
    assert (after.ticket, after.holds()) == (TICKET, (ROW,))
    after.close()


def test_a_daemon_that_took_the_removed_directory_first_keeps_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """S5: the first one goes on in memory, and what it holds is in nobody's journal."""
    state_dir = tmp_path / "state"
    first = written(state_dir)
    shutil.rmtree(state_dir)
    second = Journal.open(state_dir)
    first.look_after()
    assert "going on without a journal" in caplog.text
    assert first.statistics().errors == 1
    first.put_hold(HoldRow("h2", "lock", "/c", 8, "t", 0.0))
    first.look_after()
    first.close()
    assert (second.ticket, second.holds()) == (None, ())
    second.close()


def test_what_cannot_be_made_anew_is_told_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """S5."""
    state_dir = tmp_path / "state"
    journal = written(state_dir)
    shutil.rmtree(state_dir)
    state_dir.write_text("in the way")
    for _ in range(3):
        journal.look_after()
    assert caplog.text.count("cannot be made anew") == 1
    state_dir.unlink()
    journal.look_after()
    assert journal.statistics().remade == 1
    journal.close()


def test_a_daemon_on_a_full_disk_takes_up_what_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """S5: it says what it could not write, refuses what it cannot promise, and writes again when there is room."""
    written(tmp_path).close()
    size = journal_file(tmp_path).stat().st_size
    with no_larger_than(size // 2):
        journal = Journal.open(tmp_path)
        assert (journal.ticket, journal.holds()) == (TICKET, (ROW,))
        assert "cannot be written" in caplog.text
        assert journal.statistics().errors == 1
        assert journal_file(tmp_path).stat().st_size == size, "what was there is left"
        assert not (tmp_path / "session.new").exists()
        with pytest.raises(Unavailable, match="nothing was changed"):
            journal.put_hold(HoldRow("h2", "lock", "/c", 8, "t", 0.0))
    journal.put_hold(HoldRow("h3", "lock", "/d", 9, "t", 0.0))
    journal.close()
    after = Journal.open(tmp_path)
    assert [row.hold_id for row in after.holds()] == ["h1", "h3"]
    after.close()


def test_an_epoch_that_begins_on_a_full_disk_is_written_over_the_one_before(tmp_path: Path) -> None:
    """S4: what is over is not taken up again, and the epoch does not go back."""
    ended = written(tmp_path)
    other = Ticket(0x2000B, TICKET.password, 50)
    with no_larger_than(journal_file(tmp_path).stat().st_size // 2):
        ended.end = lambda: None  # type: ignore[method-assign]  # that line has no room either
        with pytest.raises(Unavailable):
            ended.put_hold(ROW)
    ended.close()
    full = Journal.open(tmp_path)
    file = journal_file(tmp_path)
    (tmp_path / "session.new").mkdir()  # where the next file would be written
    full.begin(4, other, 10.0)
    assert full.statistics().errors == 1
    full.put_hold(HoldRow("h9", "lock", "/z", 9, "t", 0.0))
    full.close()
    (tmp_path / "session.new").rmdir()
    after = Journal.open(tmp_path)
    assert (after.epoch, after.ticket, [row.hold_id for row in after.holds()]) == (4, other, ["h9"])
    assert file.exists()
    after.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_disk_that_is_really_full_is_no_reason_not_to_start(tmp_path: Path) -> None:
    """S5: a tmpfs of 64 KiB, filled to the last byte; also where nothing was written before."""
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=12", "tmpfs", state_dir], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        written(state_dir).close()
        fill(state_dir / "filler")
        journal = Journal.open(state_dir)
        assert (journal.ticket, journal.holds(), journal.statistics().errors) == (TICKET, (ROW,), 1)
        journal.close()
        journal_file(state_dir).unlink()
        fill(state_dir / "filler")
        journal = Journal.open(state_dir)
        assert journal.statistics().errors == 1
        with pytest.raises(Unavailable):
            journal.begin(1, TICKET, 10.0)
        with pytest.raises(Unavailable):
            journal.put_hold(ROW)
        (state_dir / "filler").unlink()
        journal.put_hold(ROW)
        assert journal.holds() == (ROW,)
        journal.close()
    finally:
        subprocess.run(["umount", state_dir], check=True)
