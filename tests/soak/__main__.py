"""The hour-long run: python -m tests.soak --minutes 60 --seed 1 --out docs/soak.json [KIND ...]

Exit status 0: everything was within its bounds. 1: something was not, and is named.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from kazoo.client import KazooClient

from tests.ops.process import DaemonProcess
from tests.soak import behaved, verdict
from tests.soak.abuse.__main__ import KINDS, NICE
from tests.soak.abuse.task import BIG_BYTES, BIG_NODES, ROOT, TREE_NODE_BYTES, TREE_NODES, big, leaf
from tests.soak.gauges import Gauges
from tests.soak.verdict import Run, Sample
from zkside.cli.zookeeper import ZooKeeperServer, find
from zkside.rpc.status import TABLE

CHECKOUT = Path(__file__).resolve().parents[2]
JUDGED = (behaved.CACHED, behaved.SERVER, behaved.SET, behaved.WATCH, behaved.RAW)
ALONE_S = 5.0
"""The well-behaved client begins so long before the abuse, and ends so long after it."""
GRACE_S = 60.0
REASONS = frozenset(kind.reason for kind, row in TABLE.items() if row.when) - {"INTERNAL"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of abuse: {', '.join(KINDS)}; none: all at once")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long; 2 is a smoke test")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write all figures there, as JSON")
    options = parser.parse_args(arguments)
    kinds = options.kinds or list(KINDS)
    if unknown := set(kinds) - KINDS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    print(
        f"{options.minutes:g} minutes of {', '.join(kinds)} (nice {NICE}) on {os.cpu_count()} processors, "
        f"seed {options.seed}; load average {os.getloadavg()[0]:.1f} before",
        flush=True,
    )
    run, done = soak(kinds, options.minutes * 60, options.seed)
    found = verdict.faults(run, JUDGED, REASONS)
    print(verdict.table(run, JUDGED))
    print("\nWhat was done:")
    for kind, counts in done.items():
        print(f"  {kind}: {', '.join(f'{count} {what}' for what, count in counts.items())}")
    print(f"\nMost resident memory: {run.peak_mb:.0f} MB. ZooKeeper stood still {len(run.pauses)} times.")
    print("GOOD" if not found else "\n".join(["NOT GOOD:", *(f"  {fault}" for fault in found)]))
    if options.out is not None:
        rows = [
            row for kind in JUDGED for row in (*verdict.minutes(run, kind), verdict.row(None, kind, run.judged(kind)))
        ]
        figures = {
            "minutes": options.minutes,
            "seed": options.seed,
            "kinds": kinds,
            "processors": os.cpu_count(),
            "peak_mb": run.peak_mb,
            "rows": [asdict(row) for row in rows],
            "gauges": [asdict(gauge) for gauge in run.gauges[::10]],
            "done": done,
            "faults": found,
        }
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if found else 0


def soak(kinds: Sequence[str], seconds: float, seed: int) -> tuple[Run, dict[str, dict[str, int]]]:
    """One run, on a ZooKeeper and a daemon of its own, in its default configuration."""
    with (
        tempfile.TemporaryDirectory(prefix="zkside-soak-") as folder,
        ZooKeeperServer(find(os.environ.get("ZOOKEEPER") or None), heap_mb=1024) as server,
    ):
        _plant(server.hosts)
        with DaemonProcess(Path(folder), ZOOKEEPER_HOSTS=server.hosts) as daemon:
            daemon.wait_for("session.connected")
            return _run(daemon, server.pid, kinds, seconds, seed)


def _run(
    daemon: DaemonProcess, zookeeper_pid: int, kinds: Sequence[str], seconds: float, seed: int
) -> tuple[Run, dict[str, dict[str, int]]]:
    run = Run(time.monotonic())
    gauges = Gauges(daemon)
    gauges.start()
    done: dict[str, dict[str, int]] = {}
    client = _start("tests.soak.behaved", daemon.address, seconds + 2 * ALONE_S)
    reading = threading.Thread(target=_read_client, args=(client, run))
    reading.start()
    time.sleep(ALONE_S)
    abusers = {kind: _start("tests.soak.abuse", kind, daemon.address, seconds, seed, zookeeper_pid) for kind in kinds}
    listeners = [threading.Thread(target=_read_abuser, args=(process, run, done)) for process in abusers.values()]
    for listener in listeners:
        listener.start()
    _wait((*abusers.values(), client), gauges, run, time.monotonic() + seconds + GRACE_S)
    for thread in (reading, *listeners):
        thread.join()
    gauges.stop()
    run.gauges, run.peak_mb, run.is_daemon_alive = gauges.read, gauges.peak_mb, gauges.is_alive_still
    run.is_client_whole &= client.returncode == 0
    return run, done


def _wait(processes: Sequence[subprocess.Popen[str]], gauges: Gauges, run: Run, until_s: float) -> None:
    """Until all have ended by themselves; those that have not when the daemon has, or in time, are killed."""
    minute = 1
    while any(process.poll() is None for process in processes):
        if time.monotonic() > until_s or not gauges.is_alive_still:
            for process in processes:
                process.kill()
        elif time.monotonic() > run.began_s + 60 * minute:
            failed = sum(bool(sample.end) for sample in run.samples)
            print(f"after {minute} min: {gauges.peak_mb:.0f} MB, {failed} of {len(run.samples)} failed", flush=True)
            minute += 1
        time.sleep(0.5)


def _start(module: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )


def _read_client(process: subprocess.Popen[str], run: Run) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        run.samples.append(Sample(*json.loads(line)))


def _read_abuser(process: subprocess.Popen[str], run: Run, done: dict[str, dict[str, int]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("pause "):
            begin, end = line.split()[1:]
            run.pauses.append((float(begin), float(end)))
        else:
            told = json.loads(line)
            done[told["kind"]] = told["done"]


def _plant(hosts: str) -> None:
    """The nodes that the run is about, by somebody else's client."""
    client = KazooClient(hosts)
    client.start(timeout=30)
    try:
        for number in range(BIG_NODES):
            client.create(big(number), bytes(BIG_BYTES), makepath=True)
        for number in range(TREE_NODES):
            client.create(leaf(number), bytes(TREE_NODE_BYTES), makepath=True)
        for number in range(20):
            client.create(f"{ROOT}/set/{number}", makepath=True)
    finally:
        client.stop()
        client.close()


if __name__ == "__main__":
    sys.exit(main())
