"""Contests: processes of several libraries after the same path, and a referee who hears them all."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import IO

from tests.interop.ledger import Ledger
from tests.interop.referee import Referee

CHECKOUT = Path(__file__).resolve().parents[2]
JAVA_BUILD = CHECKOUT / ".zkside" / "interop"


@dataclass(frozen=True, slots=True)
class Crew:
    """Contenders of one library for one recipe, all in one process."""

    library: str
    recipe: str
    size: int = 2
    host: int = 1
    """For zkside: whose daemon it talks to."""
    mark: str = ""
    """Part of the names, for who is to be told from another crew of the same kind."""

    def __str__(self) -> str:
        host = f" on host {self.host}" if self.library == "zkside" else ""
        return f"{self.size} {self.library} {self.recipe}{host}"

    @property
    def names(self) -> tuple[str, ...]:
        host = self.host if self.library == "zkside" else ""
        return tuple(
            f"{self.library}-{self.recipe}-{self.mark}{host}{letter}" for letter in ascii_lowercase[: self.size]
        )


def curator(recipe: str, size: int = 3) -> Crew:
    return Crew("curator", recipe, size)


def kazoo(recipe: str, size: int = 3) -> Crew:
    return Crew("kazoo", recipe, size)


def zkside(recipe: str, size: int = 3, *, host: int = 1) -> Crew:
    return Crew("zkside", recipe, size, host)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where contests take place: one ensemble, and daemons of two hosts."""

    hosts: str
    daemons: tuple[str, ...]

    def command(self, crew: Crew, path: str, port: int) -> tuple[str, ...]:
        where = (path, str(port), *crew.names)
        match crew.library:
            case "curator":
                return (*java(), "contend", crew.recipe, self.hosts, *where)
            case "kazoo":
                return (sys.executable, "-m", "tests.interop.kazoo_contender", crew.recipe, self.hosts, *where)
            case "zkside":
                address = self.daemons[crew.host - 1]
                return (sys.executable, "-m", "tests.interop.zkside_contender", crew.recipe, address, *where)
            case _:
                raise ValueError(crew.library)


def java() -> tuple[str, ...]:
    """The command line of tests/interop/java, without its arguments."""
    found = shutil.which("java")
    assert found, "there is no java: `make interop` installs it"
    assert (JAVA_BUILD / "classes").is_dir(), "tests/interop/java is not compiled: `make interop` does it"
    return (
        found, "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        "-cp", f"{JAVA_BUILD}/classes:{JAVA_BUILD}/lib/*", "dev.zkside.interop.Main",
    )  # fmt: skip


@dataclass(slots=True)
class Running:
    """A contender's process and what it complains about."""

    name: str
    process: asyncio.subprocess.Process
    errors: IO[bytes]

    def told(self) -> str:
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")[-4000:]


@contextlib.asynccontextmanager
async def running(
    name: str, command: Sequence[str], *, stdin: int | None = None, stdout: int | None = None
) -> AsyncIterator[Running]:
    """The process of a command, killed at the end if it is still there."""
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=stdin, stdout=stdout, stderr=errors, cwd=CHECKOUT
        )
        try:
            yield Running(name, process, errors)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def contest(
    stage: Stage, path: str, *crews: Crew, grants: int, permits: int = 1, within_s: float = 100.0
) -> Ledger:
    """Let the crews contend until there were so many grants; the referee's ledger. All permits are once out together.

    Raises: AssertionError with their complaints if one fails, or if it takes longer than `within_s`.
    """
    async with contextlib.AsyncExitStack() as stack:
        size = sum(crew.size for crew in crews)
        referee = await stack.enter_async_context(
            Referee(contenders=size, grants=grants, permits=permits, together=permits)
        )
        started = [
            await stack.enter_async_context(running(str(crew), stage.command(crew, path, referee.port)))
            for crew in crews
        ]
        await wait_ended(referee, started, within_s=within_s)
    return referee.ledger


async def wait_ended(referee: Referee, started: Sequence[Running], *, within_s: float) -> None:
    """Return when all have ended well.

    Raises: AssertionError with their complaints.
    """

    def report(what: str) -> str:
        complaints = (f"--- {each.name}: {each.process.returncode}\n{each.told()}" for each in started)
        return f"a contest {what}; {referee.waiting_for} never came; {referee.ledger}\n" + "\n".join(complaints)

    try:
        async with asyncio.timeout(within_s):
            codes = await asyncio.gather(*(each.process.wait() for each in started))
    except TimeoutError:
        raise AssertionError(report("took too long")) from None
    assert not any(codes), report("failed")


def assert_fair(ledger: Ledger) -> None:
    """One at a time (or as the recipe allows), in the order of arrival, each its share, from library to library."""
    assert ledger.overlaps == []
    assert ledger.disorders == []
    assert ledger.smallest_share() >= 0.25, ledger.grants
    assert ledger.foreign_handovers >= ledger.grants.total() / 10, ledger
