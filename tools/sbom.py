"""A bill of materials (CycloneDX 1.6, JSON) of what `pip install zkside` brings, from requirements/run.txt.

The hashes are those that pip accepts: one for each file of the release, so a component has several. Licences and
dependencies are what the installed packages say of themselves. Two runs on one commit give the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import get_spdx_licensing
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PINS = Path("requirements/run.txt")
ALLOWED = frozenset({"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "PSF-2.0"})
"""Licences that ask no more of who passes zkside on than to keep their notices."""
IN_WORDS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "MIT": "MIT",
    "MIT License": "MIT",
}
"""What packages say that do not use SPDX's expressions yet."""

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class Refused(Exception):
    """There is no bill of materials; says why."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A line of the requirements."""

    name: str
    version: str
    hashes: tuple[str, ...]


def pins(text: str) -> list[Pin]:
    """Of a requirements file in pip-compile's form."""
    lines = text.replace("\\\n", " ").splitlines()
    return [
        Pin(canonicalize_name(match["name"]), match["version"], tuple(_HASH.findall(line)))
        for line in lines
        if (match := _PIN.match(line))
    ]


def licence(name: str, about: metadata.PackageMetadata) -> str:
    """An SPDX expression. Raises: Refused if it is unknown or not allowed."""
    said = next((about[key] for key in ("License-Expression", "License") if key in about), "")
    words = IN_WORDS.get(said, said)
    if not words or get_spdx_licensing().validate(words).errors:
        raise Refused(f"{name} says {said!r} of its licence: look at it, then add it to IN_WORDS")
    expression = get_spdx_licensing().parse(words, validate=True)
    if refused := set(map(str, expression.objects)) - ALLOWED:
        raise Refused(f"{name} is under {', '.join(sorted(refused))}, which is not among {', '.join(sorted(ALLOWED))}")
    return words


def needs(name: str) -> set[str]:
    """The names of the packages that this one, as it is used here, cannot do without."""
    found: set[str] = set()
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": one}) for one in ("", "sasl")):
            found.add(canonicalize_name(requirement.name))
    return found


def bill(version: str, root: Path, wheel: Path, made: datetime) -> Bom:
    """Of zkside in that version, as it would be installed from the wheel.

    Raises: Refused if what is installed is not what is pinned, or a licence is not allowed.
    """
    name = "zkside"
    whole = Component(
        name=name,
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=f"{name}=={version}",
        purl=PackageURL("pypi", None, name, version),
        licenses=[LicenseExpression("Apache-2.0")],
        hashes=[_sha256(hashlib.sha256(wheel.read_bytes()).hexdigest())],
    )
    wanted = pins((root / PINS).read_text())
    components = {pin.name: _component(pin) for pin in wanted}
    bom = Bom(
        components=components.values(),
        metadata=BomMetaData(component=whole, timestamp=made),
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"urn:zkside:{version}:{sorted(map(repr, wanted))}"),
    )
    _depend(bom, whole, needs(name) & set(components), components)
    for one, component in components.items():
        _depend(bom, component, needs(one) & set(components), components)
    return bom


def _component(pin: Pin) -> Component:
    about = metadata.metadata(pin.name)
    if about["Version"] != pin.version:
        raise Refused(f"{pin.name} {about['Version']} is installed, {PINS} has {pin.version}: run `make setup`")
    if not pin.hashes:
        raise Refused(f"{pin.name} has no hash in {PINS}: run `make lock`")
    return Component(
        name=pin.name,
        version=pin.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"{pin.name}=={pin.version}",
        purl=PackageURL("pypi", None, pin.name, pin.version),
        licenses=[LicenseFactory().make_from_string(licence(pin.name, about))],
        hashes=map(_sha256, pin.hashes),
    )


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _depend(bom: Bom, one: Component, others: Iterable[str], components: dict[str, Component]) -> None:
    bom.register_dependency(one, [components[name] for name in sorted(others)])


def text(bom: Bom) -> str:
    """Raises: Refused if it does not keep to CycloneDX's schema."""
    written = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(written):
        raise Refused(f"not a valid CycloneDX document: {error}")
    return written
