"""What the command line prints: text for people, JSON (one object a line) for programs."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING

from zkside.errors import ZksideError

if TYPE_CHECKING:
    from zkside.client import Contender, Header, HoldStatus, Member, Node, Session, Stat


class Format(Enum):
    TEXT = "text"
    JSON = "json"


def line(text: str) -> None:
    """One line of text; characters that the terminal cannot show are escaped."""
    data = f"{text}\n".encode(sys.stdout.encoding or "utf-8", "backslashreplace")
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def raw(data: bytes) -> None:
    """Bytes, and nothing else."""
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def json_line(value: Mapping[str, object]) -> None:
    """One JSON object on a line of its own."""
    line(json.dumps(value, ensure_ascii=False))


def show_error(error: ZksideError, output: Format) -> None:
    """Tell on standard error what happened."""
    if output is Format.JSON:
        told = {"reason": error.reason, "message": str(error), "metadata": error.metadata}
        print(json.dumps({"error": told}), file=sys.stderr)
    else:
        print(f"zkside: {error}", file=sys.stderr)
        for key, value in error.metadata.items():
            if value and value not in str(error):
                print(f"  {key}: {value}", file=sys.stderr)


def text_of(data: bytes) -> str:
    """Data for people: UTF-8, with what is none, and control characters, escaped."""
    shown = data.decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() or character in "\n\t" else repr(character)[1:-1] for character in shown
    )


def data_fields(data: bytes) -> dict[str, object]:
    """`data` if it is UTF-8, `data_base64` if it is not."""
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(data).decode()}


def header_fields(header: Header) -> dict[str, object]:
    fields: dict[str, object] = {"zxid": header.zxid, "epoch": header.epoch, "stale": header.stale}
    if header.stale:
        fields["age_s"] = round(header.age_s, 3)
    return fields


def stat_fields(stat: Stat) -> dict[str, object]:
    return dict(stat._asdict())


def node_fields(node: Node) -> dict[str, object]:
    return {"path": node.path, **data_fields(node.data), "stat": stat_fields(node.stat)}


def session_fields(session: Session) -> dict[str, object]:
    return {
        "state": session.state.name,
        "keeper_state": session.keeper_state.name,
        "session_id": session.session_id,
        "epoch": session.epoch,
        "timeout_s": session.timeout_s,
        "server": session.server,
        "last_zxid": session.last_zxid,
        "lease_boottime_ns": session.lease_boottime_ns,
        "read_only": session.read_only,
        "reason": session.reason,
        "sequence": session.sequence,
        "last_error": session.last_error,
        "last_error_unix_s": session.last_error_unix_s,
    }


def hold_fields(status: HoldStatus) -> dict[str, object]:
    return {
        "state": status.state.name,
        "reason": status.reason,
        "path": status.path,
        "fencing_token": status.fencing_token,
        "epoch": status.epoch,
        "hold_id": status.hold_id,
        "position": status.position,
    }


def hold_text(status: HoldStatus) -> str:
    if status.state.name == "WAITING":
        return f"WAITING at position {status.position}"
    reason = f"  ({status.reason})" if status.reason else ""
    return f"{status.state.name} {status.path}  fencing token {status.fencing_token}  hold id {status.hold_id}{reason}"


def contender_fields(one: Contender) -> dict[str, object]:
    return {
        "path": one.path,
        **data_fields(one.value),
        "fencing_token": one.fencing_token,
        "session_id": one.session_id,
        "is_holder": one.is_holder,
        "is_shared": one.is_shared,
    }


def member_fields(member: Member) -> dict[str, object]:
    from dataclasses import asdict

    service = {} if member.service is None else {"service": asdict(member.service)}
    return {"member_id": member.member_id, **data_fields(member.data), "fencing_token": member.fencing_token, **service}


def count(number: int, noun: str) -> str:
    """'1 node', '2 nodes', '0 processes'."""
    plural = "es" if noun.endswith(("s", "ch", "sh", "x")) else "s"
    return f"{number} {noun}{'' if number == 1 else plural}"


def short(data: bytes) -> str:
    """The beginning of data, on one line."""
    shown = text_of(data[:201]).replace("\n", "\\n")
    return f"{shown[:200]}{'…' if len(data) > 200 else ''}"


def time_of(milliseconds: int) -> str:
    """A server's time."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


def stale_note(header: Header) -> None:
    """Tell people that an answer is old; JSON has it in its fields."""
    if header.stale:
        print(f"zkside: this is {header.age_s:.1f} s old, ZooKeeper cannot be reached", file=sys.stderr)
