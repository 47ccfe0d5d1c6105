"""Where configuration comes from: reading, checking and printing it.

    reading = read(environment=os.environ, flags={"zookeeper.hosts": "zk1:2181"})
    reading.config.zookeeper.hosts

Every problem is found before any is reported, and each names the place where it was written.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from zkside.config import Config, SaslMechanism
from zkside.config_keys import KEYS, Key, build, flatten
from zkside.config_kinds import QUOTING, Flag, Number, Several, Unshown
from zkside.errors import BadConfiguration, StartError
from zkside.model.identity import Auth
from zkside.zk.hosts import Hosts

DEFAULT_FILE = Path("/etc/zkside/zkside.toml")
CLIENT_VARIABLES = frozenset(
    {
        "ZKSIDE_ADDRESS",
        "ZKSIDE_CONFIG",
        "ZKSIDE_CA",
        "ZKSIDE_CERT",
        "ZKSIDE_KEY",
        "ZKSIDE_SERVER_NAME",
        "ZKSIDE_TOKEN_FILE",
    }
)
"""Read by the command line and the SDK, not keys of the daemon."""

_TYPED: Mapping[type, str] = {Several: "a list", Number: "a number", Flag: "true or false"}
"""The kinds that TOML has types for; in the environment and in flags all is text."""

# What Kubernetes sets in every container for a Service whose name begins with "zkside".
_SERVICE_LINK = re.compile(r"ZKSIDE_(\w+_)?(SERVICE_(HOST|PORT)|PORT)(_\w+)?")


class Written(NamedTuple):
    """A value as it was found."""

    key: str
    raw: object
    where: str
    has_types: bool = False
    """Whether its source tells a number, a truth value and a list from text."""


class Reading(NamedTuple):
    """A configuration, and where each value that is not a default comes from."""

    config: Config
    origins: Mapping[str, str]


def read(
    *,
    file: Path | None = None,
    environment: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
) -> Reading:
    """Read and check the configuration.

    `file` wins over $ZKSIDE_CONFIG, which wins over /etc/zkside/zkside.toml if that exists. `flags` has the
    names of keys; a flag that is None was not given.

    Raises: BadConfiguration with all that is wrong, a line each.
    """
    problems: list[str] = []
    written: dict[str, Written] = {}
    for source in (
        _from_file(_chosen_file(file, environment), problems),
        _from_environment(environment, problems),
        _from_flags(flags or {}, problems),
    ):
        written |= _secrets_read(list(source), problems)
    values: dict[str, Any] = {}
    for item in written.values():
        try:
            values[item.key] = _parsed(KEYS[item.key], item)
        except ValueError as error:
            shown = isinstance(error, Unshown) or not KEYS[item.key].is_secret
            problems.append(f"{item.where}: {error if shown else 'is not valid'}")
    if not problems:
        config: Config = build(values)
        problems += _contradictions(config)
        if not problems:
            return Reading(config, {item.key: item.where for item in written.values()})
    raise BadConfiguration(problems=tuple(problems))


def _parsed(key: Key, item: Written) -> Any:
    """Raises: ValueError."""
    value = key.kind.parse(item.raw)
    kind = next((name for of, name in _TYPED.items() if isinstance(key.kind, of)), "")
    if item.has_types and isinstance(item.raw, str) and kind:
        # In a file nothing needs to be guessed: a list that is written as text would be split at its commas.
        shown = '["…", "…"]' if key.is_secret else key.kind.show(value)
        raise Unshown(f"must be {kind} in the file, not text: write {shown}")
    return value


def printed(reading: Reading) -> str:
    """The configuration as TOML that can be read again, with each value's origin; secrets are left out."""
    lines: list[str] = []
    table = ""
    for name, value in flatten(reading.config).items():
        section, _, last = name.rpartition(".")
        if section != table:
            table = section
            lines += ["", f"[{section}]"]
        shown = KEYS[name].kind.show(value)
        origin = reading.origins.get(name, "default")
        comment = "#" if KEYS[name].is_secret and value else ""
        lines.append(f"{comment}{last} = {shown}  # {origin}")
    return "\n".join(lines) + "\n"


def documented() -> str:
    """The tables of docs/configuration.md."""
    lines: list[str] = []
    table: str | None = None
    for key in KEYS.values():
        section, _, last = key.name.rpartition(".")
        if section != table:
            table = section
            lines += ["", f"## `[{section}]`" if section else "## Top of the file", ""]
            lines += ["| key | takes | default | a new value | meaning |", "|---|---|---|---|---|"]
        name = f"`{last}`, `{last}_file`" if key.is_secret else f"`{last}`"
        when = "live" if key.live else "restart"
        lines.append(f"| {name} | {key.kind.accepts} | `{key.kind.show(key.default)}` | {when} | {key.help} |")
    return "\n".join(lines)


def _chosen_file(file: Path | None, environment: Mapping[str, str]) -> Path | None:
    if file is not None:
        return file
    if environment.get("ZKSIDE_CONFIG"):
        return Path(environment["ZKSIDE_CONFIG"])
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _known(name: str) -> bool:
    return name in KEYS or _secret_of(name) is not None


def _secret_of(name: str) -> Key | None:
    """The secret whose `_file` twin this is."""
    key = KEYS.get(name.removesuffix("_file")) if name.endswith("_file") else None
    return key if key is not None and key.is_secret else None


def _unknown(written: str, name: str, names: Mapping[str, str]) -> str:
    """`names`: how each known name is written in that source."""
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    told = f"did you mean {names[close[0]]}?" if close else "`zkside config print` shows all that there are"
    return f"{written} is not known: {told}"


def _from_file(file: Path | None, problems: list[str]) -> Iterator[Written]:
    if file is None:
        return
    try:
        document = tomllib.loads(file.read_text())
    except OSError as error:
        problems.append(f"{file}: cannot be read: {error.strerror}")
        return
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{file}: is not TOML: {error}")
        return
    for name, raw in _leaves(document, ""):
        where = f"{file}: {name}"
        tables = {key.rpartition(".")[0] for key in KEYS} - {""}
        if _known(name):
            yield Written(name, raw, where, has_types=_secret_of(name) is None)
        elif name in tables:  # [[name]] too
            first = next(key for key in KEYS if key.startswith(f"{name}."))
            problems.append(
                f"{where}: is a table of keys, such as {first}, and takes no value itself: write [{name}], and its "
                "keys below"
            )
        elif isinstance(raw, dict):
            problems.append(_unknown(f"{where} (a table)", name, {table: table for table in tables}))
        else:
            problems.append(_unknown(where, name, {key: key for key in KEYS}))


def _leaves(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for name, raw in table.items():
        whole = prefix + name
        if isinstance(raw, dict) and any(key.startswith(f"{whole}.") for key in KEYS):
            yield from _leaves(raw, f"{whole}.")
        else:
            yield whole, raw


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> Iterator[Written]:
    variables = {key.variable: key.name for key in KEYS.values()}
    variables |= {f"{key.variable}_FILE": f"{key.name}_file" for key in KEYS.values() if key.is_secret}
    for variable, raw in environment.items():
        if variable in variables:
            yield Written(variables[variable], raw, f"environment: {variable}")
        elif (
            variable.startswith("ZKSIDE_")
            and variable not in CLIENT_VARIABLES
            and not _SERVICE_LINK.fullmatch(variable)
        ):
            # What all have in common would make everything look near.
            known = {name.removeprefix("ZKSIDE_"): name for name in (*variables, *CLIENT_VARIABLES)}
            told = _unknown(f"environment: {variable}", variable.removeprefix("ZKSIDE_"), known)
            stop = "" if told.endswith("?") else "."
            problems.append(
                f"{told}{stop} Variables that begin with ZKSIDE_ are taken for keys: unset it if it is not one"
            )


def _from_flags(flags: Mapping[str, object], problems: list[str]) -> Iterator[Written]:
    for name, raw in flags.items():
        flag = "--" + name.replace(".", "-").replace("_", "-")
        if raw is None:
            continue
        if _known(name):
            yield Written(name, raw, f"flag: {flag}")
        else:
            problems.append(_unknown(f"flag: {flag}", name, {key.name: key.flag for key in KEYS.values()}))


def _secrets_read(source: list[Written], problems: list[str]) -> dict[str, Written]:
    """One source's values by key, with the files of secrets replaced by what they hold."""
    found: dict[str, Written] = {}
    for item in source:
        secret = _secret_of(item.key)
        if secret is not None:
            try:
                item = Written(secret.name, _held(secret, Path(str(item.raw)).read_text()), item.where)
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{item.where}: {item.raw!r} cannot be read: {error}")
                continue
            except Unshown as error:
                problems.append(f"{item.where}: {item.raw!r}: {error}")
                continue
        if item.key in found:
            problems.append(f"{item.where}: and {found[item.key].where} say the same thing: give one of them")
        found[item.key] = item
    return found


def _held(secret: Key, text: str) -> object:
    """What a secret's file holds; of a list an entry a line, whatever is in it. Raises: Unshown."""
    if not isinstance(secret.kind, Several):
        return text.strip()
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    held = [(number, line) for number, line in lines if line and not line.startswith("#")]
    for number, line in held:
        # A password may have a comma in it; one that is followed by a scheme is more likely a slip.
        if re.search(r",\s*(auth|digest|ip|sasl|world|x509):", line):
            raise Unshown(f"line {number} seems to have two entries: write an entry a line")
    return [line for _, line in held]


def _contradictions(config: Config) -> Iterator[str]:
    """What is wrong only in combination."""
    try:
        Hosts.parse(config.zookeeper.hosts)
    except StartError as error:
        yield f"zookeeper.{error}"
    tls, sasl = config.zookeeper.tls, config.zookeeper.sasl
    if bool(tls.cert) != bool(tls.key):
        yield "zookeeper.tls.cert and zookeeper.tls.key: give both or neither"
    for name, given in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)):
        if given is not None and not tls.enabled:
            yield f"zookeeper.tls.{name}: is given, but zookeeper.tls.enabled is false"
        if given is not None and not given.is_file():
            yield f"zookeeper.tls.{name}: there is no file {given}"
    by_password = sasl.mechanism in (SaslMechanism.DIGEST_MD5, SaslMechanism.PLAIN)
    if by_password and not (sasl.username and sasl.password):
        yield f"zookeeper.sasl: {sasl.mechanism.value} needs username and password"
    for number, secret in enumerate(config.zookeeper.auth, 1):
        scheme, colon, credential = secret.reveal().partition(":")
        if not (colon and re.fullmatch(r"[^\s:]+", scheme)) or (scheme == "digest" and ":" not in credential):
            yield f'zookeeper.auth: entry {number} is not like "digest:user:password" ({QUOTING})'
    lease = config.lease
    margin_s = lease.tick_s / 2 + lease.proof_interval_s if lease.margin_s is None else lease.margin_s
    if margin_s + lease.proof_interval_s >= config.zookeeper.session_timeout_s:
        yield (
            f"lease: a margin of {margin_s:g} s and a proof every {lease.proof_interval_s:g} s leave nothing "
            f"of zookeeper.session_timeout ({config.zookeeper.session_timeout_s:g} s)"
        )
    quotas = config.quotas
    if quotas.max_streams_per_client >= quotas.max_concurrent_streams:
        yield (
            f"quotas.max_streams_per_client ({quotas.max_streams_per_client}): has to be less than "
            f"quotas.max_concurrent_streams ({quotas.max_concurrent_streams}), or a client with so many streams cannot "
            "call any more, and hears nothing"
        )
    yield from _unsafe(config)
    if len(set(map(str, config.listen))) != len(config.listen):
        yield "listen: an address stands there twice"


def _unsafe(config: Config) -> Iterator[str]:
    """What is wrong with the listeners, and with what they rely on."""
    if bool(config.tls.cert) != bool(config.tls.key):
        yield "tls.cert and tls.key: give both or neither"
    elif config.tls.client_ca and not config.tls.cert:
        yield "tls.client_ca: means nothing without tls.cert and tls.key"
    for address in config.addresses:
        tls, demanded = config.speaks_tls(address), config.demanded(address)
        if tls and not config.tls.cert:
            yield f"listen: {address} is to speak TLS: give tls.cert and tls.key"
        if demanded is Auth.CERTIFICATE and not (tls and config.tls.client_ca):
            yield f"listen: {address} is to demand a certificate: that takes TLS, and tls.client_ca"
        if demanded is Auth.TOKEN and not config.tokens.files:
            yield f"listen: {address} is to demand a token: give tokens.files"
        if not address.is_local:
            lacking = [] if tls else ["TLS (tls.cert and tls.key)"]
            if demanded is Auth.NONE:
                lacking.append("a way to tell who calls (tls.client_ca or tokens.files)")
            if lacking:
                yield (
                    f"listen: {address} can be reached from other machines, and lacks {' and '.join(lacking)}: "
                    "give that, or listen on a Unix socket or on loopback"
                )
