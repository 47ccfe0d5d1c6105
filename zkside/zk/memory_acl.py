"""Who may do what in ZooKeeper in process: access control lists. Pure."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from zkside import errors
from zkside.model.operation import Acl

READ, WRITE, CREATE, DELETE, ADMIN = 1, 2, 4, 8, 16


class Identity(NamedTuple):
    """Somebody that an access control list can name."""

    scheme: str
    id: str


Identities = frozenset[Identity]


def digest_identity(credential: str) -> Identity:
    """Of 'user:password'. Source: DigestAuthenticationProvider.generateDigest."""
    user = credential.partition(":")[0]
    digest = base64.b64encode(hashlib.sha1(credential.encode()).digest()).decode()
    return Identity("digest", f"{user}:{digest}")


def allows(acl: Iterable[Acl], permission: int, identities: Identities) -> bool:
    """Whether one of the entries grants one of the permissions to one of the identities."""
    for entry in acl:
        if not entry.permissions & permission:
            continue
        if (entry.scheme, entry.id) == ("world", "anyone") or (entry.scheme, entry.id) in identities:
            return True
        if entry.scheme == "ip" and any(_in_network(i.id, entry.id) for i in identities if i.scheme == "ip"):
            return True
    return False


def _in_network(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)


def resolved(acl: tuple[Acl, ...], identities: Identities) -> tuple[Acl, ...]:
    """The list as it is stored: 'auth' stands for the identities of the session that proved who they are.

    Raises: InvalidAcl. Source: PrepRequestProcessor.fixupACL.
    """
    stored: dict[Acl, None] = {}
    for entry in acl:
        if entry.scheme == "auth":
            stored |= {Acl(entry.permissions, *who): None for who in identities if who.scheme != "ip"}
        elif _is_valid(entry):
            stored[entry] = None
        else:
            raise errors.InvalidAcl(f"{entry.scheme}:{entry.id} is no valid entry of an access control list")
    if not stored:
        raise errors.InvalidAcl("the access control list grants nobody anything")
    return tuple(stored)


def _is_valid(entry: Acl) -> bool:
    match entry.scheme:
        case "world":
            return entry.id == "anyone"
        case "digest":
            return entry.id.count(":") == 1
        case "ip":
            try:
                ipaddress.ip_network(entry.id, strict=False)
            except ValueError:
                return False
            return True
    return False
