"""The partitions of docs/safety.md, measured: `make safety`, or `python -m tests.safety.measure --runs 20`.

Every run is one partition with all candidates at once, so that all see the same. A line of JSON for each outcome
goes to --into; the table is made of all lines there, so that a measurement can be broken off and gone on with.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from tests.safety.partition import Outcome, Schedule, run
from tests.safety.stand import CURATOR, KAZOO, SESSION_TIMEOUT_S, TICK_S, ZKSIDE, Stand
from zkside.errors import StartError

CHECKOUT = Path(__file__).resolve().parents[2]
COMPILED = CHECKOUT / ".zkside" / "interop"
"""What `make .zkside/interop/.compiled` makes."""

NAMES = {
    "zkside-sync": "zkside, `lease.proof = sync`",
    "zkside-write": "zkside, `lease.proof = write`",
    "curator-standard": "Curator LeaderLatch, standard error policy (the default)",
    "curator-session": "Curator LeaderLatch, session error policy",
    "kazoo-suspended": "kazoo Election, stopped by a listener at SUSPENDED",
    "kazoo-lost": "kazoo Election, stopped by a listener at LOST",
    "kazoo-plain": "kazoo Election, no listener",
}


def curator_command() -> tuple[str, ...]:
    """How Curator's candidates are started; empty if they have not been compiled."""
    if not (COMPILED / "classes" / "dev" / "zkside" / "safety" / "Candidates.class").exists():
        return ()
    flags = ("-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
    return ("java", *flags, "-cp", f"{COMPILED}/classes:{COMPILED}/lib/*", "dev.zkside.safety.Candidates")


def versions(java: Sequence[str], stand: Stand) -> str:
    curator = [jar.stem.removeprefix("curator-recipes-") for jar in COMPILED.glob("lib/curator-recipes-*.jar")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True)
    parts = [
        f"zkside {version('zkside')} ({commit.stdout.strip() or 'no checkout'})",
        f"kazoo {version('kazoo')}",
        f"Curator {curator[0]}" if java else "no Curator (`make safety` compiles it)",
        f"ZooKeeper {stand.ensemble.servers[0].version}",
        f"session timeout {SESSION_TIMEOUT_S:g} s, tick {TICK_S:g} s",
    ]
    return ", ".join(parts)


def table(outcomes: Iterable[tuple[Schedule, Outcome]]) -> str:
    """Markdown: for each schedule and rule the smallest, the median and the largest."""
    known: dict[tuple[Schedule, str], list[Outcome]] = {}
    for schedule, outcome in outcomes:
        known.setdefault((schedule, outcome.rule), []).append(outcome)
    lines = []
    for schedule in Schedule:
        rules = [rule for rule in (*ZKSIDE, *CURATOR, *KAZOO) if (schedule, rule) in known]
        if not rules:
            continue
        lines += [
            f"**{schedule.value[0].upper()}{schedule.value[1:]}**",
            "",
            "| | runs | next grant after | old leader believed until | overlap: min | median | max |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_row(rule, known[schedule, rule]) for rule in rules]
        lines.append("")
    return "\n".join(lines)


def _row(rule: str, outcomes: Sequence[Outcome]) -> str:
    overlaps_s = [each.overlap_s for each in outcomes]
    until = _spread([each.believed_until_s for each in outcomes])
    open_end = "" if all(each.had_ended for each in outcomes) else " or more"
    return (
        f"| {NAMES[rule]} | {len(outcomes)} | {_spread([each.granted_s for each in outcomes])} | {until}"
        f"{' (the partition healed)' if open_end else ''} | {min(overlaps_s):.1f} s | "
        f"{statistics.median(overlaps_s):.1f} s{open_end} | {max(overlaps_s):.1f} s{open_end} |"
    )


def _spread(values_s: Sequence[float]) -> str:
    return f"{min(values_s):.1f} to {max(values_s):.1f} s"


def read(path: Path) -> list[tuple[Schedule, Outcome]]:
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        entry = json.loads(line)
        found.append((Schedule[entry.pop("schedule")], Outcome(**entry)))
    return found


def _measure(stand: Stand, schedule: Schedule, number: int, work: Path, java: Sequence[str]) -> list[Outcome]:
    """The run with that number, in a second try where the first came to nothing."""
    for attempt in (1, 2, 3):
        path = f"/{schedule.name.lower()}-{number}-{attempt}"
        try:
            return run(stand, schedule, path, work / path[1:], java=java)
        except TimeoutError as error:
            print(f"run {number + 1}: {schedule.value}: came to nothing: {error}", flush=True)
    raise StartError("three runs in a row came to nothing: is this machine too busy?")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--schedule", action="append", choices=[each.name for each in Schedule])
    parser.add_argument("--into", type=Path, default=COMPILED.parent / "safety.jsonl")
    given = parser.parse_args()
    # As Ctrl-C: nothing is left behind, whoever ends it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    schedules = [Schedule[name] for name in given.schedule or Schedule.__members__]
    given.into.parent.mkdir(parents=True, exist_ok=True)
    java = curator_command()
    with Stand() as stand, tempfile.TemporaryDirectory() as work:
        print(versions(java, stand), flush=True)
        for number in range(given.runs):
            for schedule in schedules:
                outcomes = _measure(stand, schedule, number, Path(work), java)
                with given.into.open("a") as into:
                    into.writelines(json.dumps({"schedule": schedule.name} | asdict(each)) + "\n" for each in outcomes)
                worst = max(each.overlap_s for each in outcomes if each.rule in ZKSIDE)
                print(f"run {number + 1} of {given.runs}: {schedule.value}: zkside's overlap {worst:.1f} s", flush=True)
    print()
    print(table(read(given.into)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
