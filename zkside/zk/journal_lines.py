"""The lines of a journal, and what they add up to: see zk/journal.py.

Each line is a checksum and a JSON object. The first is the head, written with the whole file; the others are what
changed since. What one reads is either all that was acknowledged, or Damaged.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field, fields
from typing import Any

from zkside.model.hold import HoldRow
from zkside.zk.port import Ticket

FORMAT = 1
_ROW_FIELDS = frozenset(one.name for one in fields(HoldRow))


@dataclass(slots=True)
class Content:
    """What the lines add up to."""

    epoch: int = 0
    ticket: Ticket | None = None
    timeout_s: float = 0.0
    holds: dict[str, HoldRow] = field(default_factory=dict)
    owned: set[str] = field(default_factory=set)
    zxid: int = 0
    """The newest that was seen, by whatever session."""
    history: int = 1
    former_zxid: int = 0
    """The newest that was seen in any history before this one."""
    bound: str = ""
    """The file that the journal was written to; '' in one of an earlier version."""


class Damaged(Exception):
    """The file is no journal of ours; says why. Carries the newest epoch that could be read."""

    def __init__(self, why: str, epoch: int = 0) -> None:
        super().__init__(why)
        self.epoch = epoch


def whole(content: Content, cluster: str, bound: str) -> list[bytes]:
    """The lines of a new file with this content, which is to be bound to that file."""
    head: dict[str, Any] = {"format": FORMAT, "cluster": cluster, "epoch": content.epoch}
    head |= {"zxid": content.zxid, "history": content.history, "former_zxid": content.former_zxid, "bound": bound}
    if content.ticket is not None:
        head["session"] = {
            "id": content.ticket.session_id,
            "password": content.ticket.password.hex(),
            "zxid": content.ticket.last_zxid,
            "timeout_s": content.timeout_s,
        }
    entries = [head]
    entries += ({"own": path} for path in sorted(content.owned))
    entries += ({"hold": row_of(row)} for row in content.holds.values())
    return [line_of(entry) for entry in entries]


def row_of(row: HoldRow) -> dict[str, Any]:
    return {name.name: getattr(row, name.name) for name in fields(row)} | {"data": dict(row.data)}


def line_of(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(line: bytes) -> dict[str, Any]:
    """Raises ValueError."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        raise ValueError("wrong checksum")
    entry = json.loads(text)
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    return entry


def read(text: bytes, cluster: str) -> Content:
    """Raises Damaged. A last line that is not whole was being written when the daemon died: it was never
    acknowledged to anybody, and is ignored."""
    lines = text.split(b"\n")
    last = lines.pop()
    if not lines:
        raise Damaged("no line of it is whole, though the first one was written with the file")
    if _is_whole(last[:-1]):
        raise Damaged("the last line is whole but for its end")
    content = Content()
    for number, line in enumerate(lines, 1):
        try:
            entry = _parse(line)
            if number == 1:
                _apply_head(content, entry, cluster)
            else:
                _apply(content, entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"line {number}: {error}", content.epoch) from error
    return content


def _is_whole(line: bytes) -> bool:
    try:
        _parse(line)
    except ValueError:
        return False
    return True


def _apply_head(content: Content, head: dict[str, Any], cluster: str) -> None:
    content.epoch = int(head["epoch"])
    if head["format"] != FORMAT:
        raise Damaged(f"format {head['format']}, not {FORMAT}", content.epoch)
    if not _is_same_cluster(str(head["cluster"]), cluster):
        raise Damaged(f"it is of {head['cluster']!r}, not of {cluster!r}", content.epoch)
    content.history, content.former_zxid = int(head.get("history", 1)), int(head.get("former_zxid", 0))
    content.bound, content.zxid = str(head.get("bound", "")), int(head.get("zxid", 0))
    session = head.get("session")
    if session is not None:
        content.timeout_s = float(session["timeout_s"])
        content.ticket = Ticket(int(session["id"]), bytes.fromhex(session["password"]), int(session["zxid"]))
        content.zxid = max(content.zxid, content.ticket.last_zxid)


def _apply(content: Content, entry: dict[str, Any]) -> None:
    ((kind, value),) = entry.items()
    match kind:
        case "hold":
            row = HoldRow(**{name: value[name] for name in _ROW_FIELDS & value.keys()})
            content.holds[row.hold_id] = row
        case "drop":
            content.holds.pop(value, None)
        case "own":
            content.owned.add(value)
        case "disown":
            content.owned.discard(value)
        case "zxid":
            content.zxid = int(value)
            if content.ticket is not None:
                content.ticket = Ticket(content.ticket.session_id, content.ticket.password, int(value))
        case "over":
            content.ticket = None
        case _:
            raise ValueError(f"unknown entry {kind!r}")


def _is_same_cluster(one: str, other: str) -> bool:
    """The same chroot, and a server in common (an ensemble may grow while its sessions live on)."""
    hosts, _, chroot = one.partition("/")
    other_hosts, _, other_chroot = other.partition("/")
    return chroot == other_chroot and bool(set(hosts.split(",")) & set(other_hosts.split(",")))
