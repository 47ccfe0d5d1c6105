"""`python -m bench [name …]`: runs benchmarks, prints their tables, and writes JSON, Markdown and a plot."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from bench import report
from bench.crew import raise_limit_of_open_files
from bench.figures import Plan
from bench.plot import svg

BENCHMARKS = (
    "fanout",
    "burst",
    "reads",
    "writes",
    "load",
    "memory",
    "mixed",
    "holds",
    "failover",
    "locks",
    "handover",
    "jeopardy",
    "restart",
)
"""Modules of this package. Imported one by one: every worker process imports this module again."""


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 when a goal was missed, but not in a smoke run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="a smoke run: small, its figures mean nothing")
    parser.add_argument("--thorough", action="store_true", help="repeat also what takes a minute each time")
    parser.add_argument("--repetitions", type=int, default=0, help="default 3, with --quick 1")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder of the three files")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}")
    plan = Plan(chosen.quick, chosen.thorough, chosen.repetitions or (1 if chosen.quick else 3))
    raise_limit_of_open_files()
    entries = report.load(chosen.out / report.JSON)
    missed = 0
    for name in chosen.names or BENCHMARKS:
        module = importlib.import_module(f"bench.{name}")
        title = (module.__doc__ or "").partition("\n")[0]
        print(f"# {name}: {title}", flush=True)
        start = time.monotonic()
        findings = module.run(plan)
        entries[name] = report.entry(name, title, findings, took_s=time.monotonic() - start, quick=plan.quick)
        print("\n".join(report.table(findings)), f"took {entries[name].took_s:.0f} s\n", sep="\n", flush=True)
        missed += sum(not goal.is_met for row in findings.rows for goal in row.goals)
        write(chosen.out, entries)
    if missed:
        print(f"{missed} goals fell short", file=sys.stderr)
    return 1 if missed and not plan.quick else 0


def write(out: Path, entries: dict[str, report.Entry]) -> None:
    """The three files, the benchmarks in their usual order."""
    ordered = {name: entries[name] for name in BENCHMARKS if name in entries}
    report.save(out / report.JSON, ordered)
    (out / report.MARKDOWN).write_text(report.markdown(ordered))
    (out / report.PLOT).write_text(svg(ordered))


if __name__ == "__main__":
    sys.exit(main())
