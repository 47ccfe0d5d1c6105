"""Members of groups, and the JSON in which Curator's service discovery keeps its instances.

Curator's own serializer (curator-x-discovery 5.9) decides: the fields, their order, and that `enabled` stands there
only for an instance that says so, since older clients refuse fields that they do not know.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from zkside.errors import InvalidArgument
from zkside.model import record as records
from zkside.model.record import Record

MAX_PORT = 65_535
MAX_JAVA_INT = (1 << 31) - 1
MIN_TIME_MS = -62_135_596_800_000
MAX_TIME_MS = 253_402_300_799_999
"""The years 1 to 9999."""

_URI_PIECE = re.compile(r"\{([^{}]*)\}|([^{}]+)|[{}]")


@dataclass(frozen=True, slots=True)
class ServiceInstance:
    """One instance of a service."""

    name: str
    id: str
    address: str = ""
    port: int | None = None
    ssl_port: int | None = None
    payload: str = ""
    """JSON; '' for null."""
    registration_time_ms: int = 0
    """Since the Unix epoch."""
    uri_spec: str = ""
    """Such as "{scheme}://{address}:{port}"; '' for none."""
    enabled: bool | None = None
    """None: not said, which means true."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a group."""

    member_id: str
    data: bytes
    fencing_token: int
    service: ServiceInstance | None


def member(member_id: str, record: Record) -> Member:
    """The member that a child of a group is."""
    data = records.data(record)
    return Member(member_id, data, records.zxids(record)[0], decode(data))


def is_member(record: Record) -> bool:
    """Whether a child of a group is a member.

    Ephemeral nodes are, and those persistent ones that hold a service instance (Curator's PERMANENT ones); a
    directory or a lock's parent below the same path is not, and of one that may not be read nobody can tell.
    """
    if record == records.UNREADABLE:
        return False
    return records.stat(record).ephemeral_owner != 0 or decode(records.data(record)) is not None


def encode(instance: ServiceInstance) -> bytes:
    """The znode's data, byte for byte as Curator writes it but for the spelling of the payload, which is kept.

    Raises: InvalidArgument, for what would make Curator fail on the whole service.
    """
    for field, port in (("port", instance.port), ("ssl_port", instance.ssl_port)):
        if port is not None and not 0 <= port <= MAX_PORT:
            raise InvalidArgument(f"a port is 0 to {MAX_PORT}, not {port}", field=f"service.{field}")
    payload = instance.payload.strip()
    if payload:
        try:
            json.loads(payload, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"not JSON: {error}", field="service.payload") from None
    parts = _parse_uri_spec(instance.uri_spec)
    fields = [
        ("name", _json(instance.name)),
        ("id", _json(instance.id)),
        ("address", _json(instance.address)),
        ("port", _json(instance.port)),
        ("sslPort", _json(instance.ssl_port)),
        ("payload", payload or "null"),
        ("registrationTimeUTC", _json(instance.registration_time_ms)),
        ("serviceType", _json("DYNAMIC")),
        ("uriSpec", _json({"parts": parts} if parts else None)),
    ]
    if instance.enabled is not None:
        fields.append(("enabled", _json(instance.enabled)))
    return ("{" + ",".join(f'"{name}":{text}' for name, text in fields) + "}").encode()


def decode(data: bytes) -> ServiceInstance | None:
    """The instance in a znode's data; None if there is none in it."""
    if not data.startswith(b"{"):
        return None
    try:
        found = json.loads(data.decode())
        if not isinstance(found.get("name"), str) or not isinstance(found.get("id"), str):
            return None
        registered_ms = found.get("registrationTimeUTC")
        if not _is_int(registered_ms, MIN_TIME_MS, MAX_TIME_MS):
            return None
        payload = found.get("payload")
        enabled = found.get("enabled")
        instance = ServiceInstance(
            name=found["name"],
            id=found["id"],
            address=_text(found.get("address")),
            port=_port(found.get("port")),
            ssl_port=_port(found.get("sslPort")),
            payload="" if payload is None else _json(payload),
            registration_time_ms=registered_ms,
            uri_spec=_format_uri_spec(found.get("uriSpec")),
            enabled=enabled if isinstance(enabled, bool) else None,
        )
        # JSON can escape half of a character, which no UTF-8 can say.
        f"{instance.name}{instance.id}{instance.address}{instance.payload}{instance.uri_spec}".encode()
    except (ValueError, RecursionError):
        return None
    return instance


def is_same_member(one: bytes, other: bytes) -> bool:
    """Whether two data of one member's node say the same of where it is to be found.

    An instance that starts anew has another registration time, and says the same.
    """
    if one == other:
        return True
    first, second = decode(one), decode(other)
    if first is None or second is None:
        return False
    return _place(first) == _place(second)


def _place(instance: ServiceInstance) -> tuple[object, ...]:
    return instance.name, instance.id, instance.address, instance.port, instance.ssl_port


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON value")


def _is_int(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _port(value: object) -> int | None:
    return value if isinstance(value, int) and _is_int(value, 0, MAX_JAVA_INT) else None


def _parse_uri_spec(spec: str) -> list[dict[str, object]]:
    """Curator's UriSpec: names in braces are variables."""
    parts: list[dict[str, object]] = []
    for piece in _URI_PIECE.finditer(spec):
        variable, constant = piece.groups()
        if variable is None and constant is None:
            raise InvalidArgument(f"unpaired or nested brace at character {piece.start()}", field="service.uri_spec")
        if variable is None:
            parts.append({"value": constant, "variable": False})
        elif variable.strip():
            parts.append({"value": variable.strip(), "variable": True})
    return parts


def _format_uri_spec(spec: object) -> str:
    parts = spec.get("parts") if isinstance(spec, dict) else None
    named = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "".join(
        f"{{{part['value']}}}" if part.get("variable") is True else part["value"]
        for part in named
        if isinstance(part.get("value"), str)
    )
