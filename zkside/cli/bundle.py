"""What `zkside debug bundle` gathers: each part for itself, so that what cannot be had takes nothing else with it."""

from __future__ import annotations

import asyncio
import http.client
import importlib.metadata
import io
import json
import os
import platform
import tarfile
import time
import tomllib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from zkside.cli import config, hung
from zkside.cli.doctor import examine
from zkside.errors import ZksideError

if TYPE_CHECKING:
    from zkside.client import Client

PART_S = 10.0
"""How long one part may take."""
MAX_PAGE_BYTES = 16 * 1024 * 1024
NOT_SECRET = """\
What this is: the state of one zkside daemon, gathered by `zkside debug bundle`. It has paths of nodes, addresses,
session ids, fencing tokens and the last log lines. It has no data of nodes, no passwords, no tokens, no resume tokens,
no private keys and no environment variables. parts.json says what each file is, and what could not be had and why.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the bundle, or why it is not there."""

    file: str
    what: str
    missing: str
    took_s: float


@dataclass(slots=True)
class Bundle:
    """The files by their names, and what became of each part."""

    files: dict[str, bytes] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)

    async def gather(self, file: str, what: str, make: Callable[[], Awaitable[bytes]]) -> bool:
        """One part; whether it could be had. Never raises but for a cancellation."""
        begun_s = time.monotonic()
        missing = ""
        try:
            async with asyncio.timeout(PART_S):
                self.files[file] = await make()
        except TimeoutError:
            missing = f"took longer than {PART_S:g} s"
        except (ZksideError, OSError, ValueError) as error:
            missing = str(error) or type(error).__name__
        self.parts.append(Part(file, what, missing, round(time.monotonic() - begun_s, 3)))
        return not missing

    def leave_out(self, file: str, what: str, why: str) -> None:
        self.parts.append(Part(file, what, why, 0.0))

    def packed(self, name: str) -> bytes:
        """A .tar.gz with one directory of this name."""
        into = io.BytesIO()
        files = {
            "README.txt": NOT_SECRET.encode(),
            "parts.json": _lines(self.parts),
            **self.files,
        }
        with tarfile.open(fileobj=into, mode="w:gz") as tar:
            for file, data in files.items():
                entry = tarfile.TarInfo(f"{name}/{file}")
                entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
                tar.addfile(entry, io.BytesIO(data))
        return into.getvalue()


async def collect(client: Client, *, named: bool) -> Bundle:
    """Everything that can be had of the daemon that this client is for, and of this host."""
    bundle, admin = Bundle(), client.admin
    await bundle.gather("client.json", "this command, and the machine that it ran on", _this_side)
    await bundle.gather("config.toml", "the configuration as a daemon started here now would read it", _configuration)
    await bundle.gather("doctor.txt", "zkside doctor", lambda: _doctor(client, named=named))
    silent = ""
    if not await bundle.gather("status.json", "zkside status", lambda: _one(admin.status())):
        silent = f"the daemon does not answer: {bundle.parts[-1].missing}"
    asked: tuple[tuple[str, str, Callable[[], Awaitable[bytes]]], ...] = (
        ("state.json", "its own account: configuration, holds, watches, streams, tasks, threads", admin.dump_state),
        ("log.jsonl", "the last lines of its log", lambda: _log(client)),
        ("log-levels.jsonl", "zkside log-level", lambda: _each(admin.log_levels())),
        ("holds.jsonl", "zkside admin holds", lambda: _each(admin.holds())),
        ("watches.jsonl", "zkside admin watches", lambda: _each(admin.watches())),
        ("streams.jsonl", "zkside admin streams", lambda: _each(admin.streams())),
    )
    for file, what, make in asked:
        if silent:
            bundle.leave_out(file, what, silent)
        else:
            await bundle.gather(file, what, make)
    await bundle.gather("metrics.txt", "/metrics", lambda: asyncio.to_thread(_metrics, bundle))
    process = hung.Process.behind(client.address)
    await bundle.gather("process.txt", "what the kernel says of it", lambda: asyncio.to_thread(process.described))
    if silent:
        what = "where its threads are, written by itself at a signal"
        await bundle.gather("stacks.txt", what, lambda: asyncio.to_thread(process.stacks, _state_dir(bundle)))
    return bundle


async def _this_side() -> bytes:
    packages = ("zkside", "grpcio", "protobuf", "click", "kazoo", "uvloop", "prometheus-client")
    installed = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
    document = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "packages": {name: installed.get(name, "") for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "user": os.geteuid(),
        "boottime_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        "monotonic_ns": time.monotonic_ns(),
        "load": os.getloadavg(),
        "cpus": os.cpu_count(),
    }
    return _lines([document])


async def _configuration() -> bytes:
    return config.local().encode()


async def _doctor(client: Client, *, named: bool) -> bytes:
    rows = []
    async for finding in examine(client, named=named):
        rows.append(f"{finding.level.value:<5} {finding.check:<11} {finding.told}")
        if finding.todo:
            rows.append(f"{'':<17} → {finding.todo}")
    return "\n".join([*rows, ""]).encode()


async def _log(client: Client) -> bytes:
    answer = await client.admin.log_lines()
    begin = [json.dumps({"event": "bundle.dropped", "lines": answer.dropped})] if answer.dropped else []
    return "\n".join([*begin, *answer.lines, ""]).encode()


async def _one(value: Awaitable[object]) -> bytes:
    return _lines([await value])


async def _each(values: Awaitable[Iterable[object]]) -> bytes:
    return _lines(await values)


def _lines(values: Iterable[object]) -> bytes:
    return "".join(json.dumps(_plain(value), ensure_ascii=False) + "\n" for value in values).encode()


def _plain(value: Any) -> Any:
    """As JSON has it. Of a hold the resume token is left out, also if a daemon were to tell it."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({one.name: getattr(value, one.name) for one in fields(value) if one.name != "resume_token"})
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _metrics(bundle: Bundle) -> bytes:
    """Blocks: for a thread."""
    host, port = _pages(bundle)
    connection = http.client.HTTPConnection(host, port, timeout=PART_S / 2)
    try:
        connection.request("GET", "/metrics", headers={"Host": f"localhost:{port}"})
        answer = connection.getresponse()
        text = answer.read(MAX_PAGE_BYTES)
        if answer.status != 200:
            raise ZksideError(f"{answer.status}: {text[:200].decode(errors='replace').strip()}")
        return text
    except http.client.HTTPException as error:
        raise ZksideError(f"no answer that makes sense: {type(error).__name__}") from error
    finally:
        connection.close()


def _pages(bundle: Bundle) -> tuple[str, int]:
    """Where the pages are: as the daemon says, or else as the configuration of this machine does."""
    listen = str(_local_keys(bundle).get("http", {}).get("listen", ""))
    host, _, port = listen.rpartition(":")
    if "state.json" in bundle.files:
        told = json.loads(bundle.files["state.json"])["http"]
        host, _, port = told.rpartition(":")
    if not port.isdecimal() or int(port) == 0:
        raise ZksideError("it is not known where the pages are (http.listen)")
    return host.strip("[]") or "127.0.0.1", int(port)


def _state_dir(bundle: Bundle) -> str:
    return str(_local_keys(bundle).get("state_dir", ""))


def _local_keys(bundle: Bundle) -> dict[str, Any]:
    return tomllib.loads(bundle.files["config.toml"].decode()) if "config.toml" in bundle.files else {}
