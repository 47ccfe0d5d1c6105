"""The bill of materials says what is installed, and refuses what nobody has looked at."""

from __future__ import annotations

import hashlib
import json
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from tests.release.conftest import ROOT, Built
from tools import dist, sbom

PINS = (ROOT / sbom.PINS).read_text()


@pytest.fixture(scope="module")
def file(built: Built) -> Path:
    # The sources' own git history is not with them; the checkout's is.
    return dist.describe(ROOT, built.wheel)


@pytest.fixture(scope="module")
def bill(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def test_its_components_are_the_pinned_requirements_with_their_hashes(bill: dict[str, Any]) -> None:
    """Read from the requirements in another way than the bill's."""
    lines = [line.strip(" \\") for line in PINS.splitlines() if line.strip() and not line.startswith("#")]
    wanted: dict[str, set[str]] = {}
    for line in lines:
        if line.startswith("--hash=sha256:"):
            wanted[list(wanted)[-1]].add(line.removeprefix("--hash=sha256:"))
        else:
            wanted[line.split(";")[0].strip()] = set()
    told = {
        f"{one['name']}=={one['version']}": {each["content"] for each in one["hashes"]} for one in bill["components"]
    }
    assert told == wanted
    assert all(len(hashes) > 0 for hashes in told.values())


def test_it_names_the_licence_of_each(bill: dict[str, Any]) -> None:
    for component in bill["components"]:
        (licence,) = component["licenses"]
        assert licence.get("expression") or licence["license"]["id"] in sbom.ALLOWED


def test_it_says_which_wheel_it_is_of(bill: dict[str, Any], built: Built) -> None:
    whole = bill["metadata"]["component"]
    assert whole["name"] == "zkside"
    assert built.wheel.name.startswith(f"zkside-{whole['version']}-")
    assert [one["content"] for one in whole["hashes"]] == [hashlib.sha256(built.wheel.read_bytes()).hexdigest()]


def test_every_component_is_there_because_something_needs_it(bill: dict[str, Any]) -> None:
    needs = {one["ref"]: set(one.get("dependsOn", ())) for one in bill["dependencies"]}
    reached, todo = set(), [bill["metadata"]["component"]["bom-ref"]]
    while todo:
        reached.add(one := todo.pop())
        todo += needs[one] - reached
    assert reached == set(needs)
    assert len(needs) == len(bill["components"]) + 1


def test_it_is_written_alike_twice(file: Path, built: Built) -> None:
    before = file.read_bytes()
    assert dist.describe(ROOT, built.wheel).read_bytes() == before


def test_a_document_that_breaks_the_schema_is_refused(file: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(file.read_text()) is None
    assert validator.validate_str(file.read_text().replace('"SHA-256"', '"SHA-255"', 1)) is not None


def package(**says: str) -> Any:
    about = Message()
    for name, value in says.items():
        about[name.replace("_", "-")] = value
    return about


def test_a_licence_outside_the_list_is_refused() -> None:
    with pytest.raises(sbom.Refused, match=r"gnu is under GPL-3\.0-only"):
        sbom.licence("gnu", package(License_Expression="MIT AND GPL-3.0-only"))


@pytest.mark.parametrize("says", [{"License": "Do What Is Right"}, {"License": "UNKNOWN"}, {}])
def test_a_licence_in_unknown_words_is_refused(says: dict[str, str]) -> None:
    with pytest.raises(sbom.Refused, match="look at it"):
        sbom.licence("strange", package(**says))


def test_an_environment_that_is_not_the_pinned_one_is_refused(built: Built, tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / sbom.PINS).write_text(PINS.replace("click==8", "click==7"))
    with pytest.raises(sbom.Refused, match=r"click 8\S+ is installed, requirements/run\.txt has 7"):
        sbom.bill("1.0.0", tmp_path, built.wheel, dist.source_date(ROOT))
