"""From the document that a policy file holds to the policy, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from zkside.core.policy import ANYONE, STRENGTH, Identity, Limits, Policy, Rule, Verb
from zkside.errors import BadRequest
from zkside.model import path as paths

MOST_IDENTITIES = 10_000
MOST_RULES = 1_000
MOST_QUOTA = 1_000_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# What a text about a path might quote or escape, so that it would not be found in it again.
_NOT_IN_CHROOT = re.compile(r"[\s'\"\\\[\](){}<>,;…]")


class PolicyError(ValueError):
    """The policy cannot be used; a line for each thing that is wrong, with its place."""


def parse(document: Mapping[str, Any]) -> Policy:
    """The policy that a TOML document describes.

    Raises: PolicyError with all that is wrong, a line each, and where.
    """
    problems: list[str] = []
    identities = dict(_identities(document, problems))
    taken: dict[str, str] = {}
    for identity in identities.values():
        for caller in identity.callers:
            if caller in taken:
                owner = taken[caller]
                where = "twice" if owner == identity.name else f"and identities.{owner}.callers too"
                problems.append(f"identities.{identity.name}.callers: {caller!r} stands there {where}")
            taken.setdefault(caller, identity.name)
    if problems:
        raise PolicyError("\n".join(problems))
    return Policy(MappingProxyType(identities))


def _identities(document: Mapping[str, Any], problems: list[str]) -> Iterator[tuple[str, Identity]]:
    _check_keys(document, ("identities",), "", problems)
    tables = _table(document, "identities", "", problems)
    if not tables and not problems:
        problems.append("identities: there is none, so nobody could call at all")
    if len(tables) > MOST_IDENTITIES:
        problems.append(f"identities: at most {MOST_IDENTITIES}, not {len(tables)}")
        return
    for name, table in tables.items():
        where = f"identities.{name}"
        if not _NAME.fullmatch(name):
            problems.append(f"{where}: a name has up to 64 letters, digits, '.', '_', '@' and '-'")
        elif not isinstance(table, dict):
            problems.append(f"{where}: must be a table")
        else:
            yield name, _identity(name, table, where, problems)


def _identity(name: str, table: Mapping[str, Any], where: str, problems: list[str]) -> Identity:
    _check_keys(table, ("callers", "chroot", "quotas", "rules"), where, problems)
    chroot = _chroot(table, where, problems)
    rules = tuple(_rules(name, table, chroot, where, problems))
    limits = _limits(_table(table, "quotas", where, problems), f"{where}.quotas", problems)
    return Identity(name, tuple(_callers(table, where, problems)), rules, chroot, limits)


def _callers(table: Mapping[str, Any], where: str, problems: list[str]) -> Iterator[str]:
    callers = table.get("callers")
    if not isinstance(callers, list) or not callers:
        problems.append(f'{where}.callers: must be a list of who this is, such as ["listener:app", "token:app"]')
        return
    for number, caller in enumerate(callers):
        kind, _, rest = caller.partition(":") if isinstance(caller, str) else ("", "", "")
        if caller == ANYONE or (f"{kind}:" in STRENGTH and rest and rest == rest.strip()):
            yield caller
        else:
            problems.append(
                f'{where}.callers[{number}]: must be "listener:NAME", "token:NAME", "uri:…", "dns:…", "cn:…" '
                f'or "{ANYONE}", not {caller!r}'
            )


def _chroot(table: Mapping[str, Any], where: str, problems: list[str]) -> str:
    raw = table.get("chroot", "")
    if raw == "" and "chroot" not in table:
        return ""
    chroot = _path(raw, f"{where}.chroot", problems)
    if chroot == "/":
        problems.append(f'{where}.chroot: "/" is where everybody begins: leave it out')
    elif not chroot.isprintable() or _NOT_IN_CHROOT.search(chroot):
        problems.append(f"{where}.chroot: {raw!r} has spaces, quotes, brackets or characters that are not printed")
    return chroot


def _rules(name: str, table: Mapping[str, Any], chroot: str, where: str, problems: list[str]) -> Iterator[Rule]:
    tables = table.get("rules", [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        problems.append(f"{where}.rules: must be tables, [[{where}.rules]]")
        return
    if len(tables) > MOST_RULES:
        problems.append(f"{where}.rules: at most {MOST_RULES}, not {len(tables)}")
        return
    seen_names: set[str] = set()
    seen_paths: dict[str, str] = {}
    for number, each in enumerate(tables):
        place = f"{where}.rules[{number}]"
        _check_keys(each, ("name", "path", "verbs"), place, problems)
        path = _path(each.get("path"), f"{place}.path", problems)
        called = each.get("name", f"{name}:{path}")
        if not isinstance(called, str) or not called.strip():
            problems.append(f"{place}.name: must be text, not {called!r}")
            continue
        if called in seen_names and "name" in each:
            problems.append(f"{place}.name: another rule is called {called!r} too")
        if path and path in seen_paths:
            problems.append(f"{place}.path: {seen_paths[path]} is for {path!r} too: give its verbs in one")
        if path and chroot and not (paths.is_within(path, chroot) or paths.is_within(chroot, path)):
            problems.append(f"{place}.path: {path!r} is outside of the chroot {chroot!r}, so it would allow nothing")
        seen_names.add(called)
        seen_paths[path] = place
        yield Rule(called, path, frozenset(_verbs(each, place, problems)))


def _verbs(table: Mapping[str, Any], where: str, problems: list[str]) -> Iterator[Verb]:
    raw = table.get("verbs")
    known = [verb.value for verb in Verb]
    if not isinstance(raw, list) or not raw:
        problems.append(f"{where}.verbs: must be a list of {', '.join(known)}")
        return
    for number, word in enumerate(raw):
        if word not in known:
            problems.append(f"{where}.verbs[{number}]: must be one of {', '.join(known)}, not {word!r}")
        elif word in raw[:number]:
            problems.append(f"{where}.verbs[{number}]: {word!r} stands there twice")
        else:
            yield Verb(word)


def _limits(table: Mapping[str, Any], where: str, problems: list[str]) -> Limits:
    names = [each.name for each in fields(Limits)]
    _check_keys(table, names, where, problems)
    values: dict[str, int] = {}
    for name in names:
        value = table.get(name)
        if value is None:
            continue
        if type(value) is not int or not 0 <= value <= MOST_QUOTA:
            problems.append(f"{where}.{name}: must be a number from 0 to {MOST_QUOTA}, not {value!r}")
        else:
            values[name] = value
    return Limits(**values)


def _path(raw: object, where: str, problems: list[str]) -> str:
    """The path as it is; '' if it is none."""
    if not isinstance(raw, str):
        problems.append(f'{where}: must be the path of a node, such as "/app", not {raw!r}')
        return ""
    try:
        return paths.validate(raw)
    except BadRequest as error:
        problems.append(f"{where}: {error}")
        return ""


def _table(table: Mapping[str, Any], key: str, where: str, problems: list[str]) -> Mapping[str, Any]:
    value = table.get(key, {})
    if isinstance(value, dict):
        return value
    problems.append(f"{where}{'.' if where else ''}{key}: must be a table")
    return {}


def _check_keys(table: Mapping[str, Any], known: Iterable[str], where: str, problems: list[str]) -> None:
    known = list(known)
    for key in table:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            problems.append(f"{where}{'.' if where else ''}{key}: is not known: {hint}")
