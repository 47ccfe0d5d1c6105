"""docs/runbook.md: a section for each alert, and nothing in it that does not exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from zkside import log
from zkside.cli.root import COMMANDS
from zkside.cli.root import zkside as command
from zkside.config_keys import KEYS
from zkside.log_event import EVENTS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "runbook.md").read_text()
SECTIONS = dict(zip(*[iter(re.split(r"^## (\w+)\n", TEXT, flags=re.MULTILINE)[1:])] * 2, strict=True))
PARTS = ("Meaning.", "Impact.", "First look.", "Causes.", "What to do.", "Over when")


def alerts() -> list[str]:
    rules = yaml.safe_load((ROOT / "deploy/k8s/monitoring/rules.yaml").read_text())
    return [rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]]


def commands(text: str) -> list[list[str]]:
    """Every `zkside …` of the code blocks, and in the sentences; without what stands behind a pipe."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line.split(" #")[0] for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`((?:[^`]+ -- )?zkside [^`]+)`", text)
    parts = [part.strip() for line in lines for part in re.split(r"[|;>]| -- ", line)]
    return [shlex.split(part)[1:] for part in parts if part.startswith("zkside ")]


def problem(words: list[str]) -> str:
    """What is wrong with a command line of zkside, before anything would be sent."""
    context, found = click.Context(command, info_name="zkside"), command
    node: click.Command = found
    rest = list(words)
    while isinstance(node, click.Group) and rest:
        step = node.get_command(context, rest.pop(0))
        if step is None:
            return f"there is no `zkside {' '.join(words)}`"
        node = step
        context = click.Context(node, parent=context, info_name=node.name)
    try:
        node.parse_args(context, rest)
    except click.UsageError as error:
        return f"`zkside {' '.join(words)}`: {error.message}"
    return ""


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    assert list(SECTIONS) == alerts(), "in the order of the rules"


@pytest.mark.parametrize("alert", SECTIONS)
def test_a_section_says_what_it_means_what_to_do_and_when_it_is_over(alert: str) -> None:
    found = [SECTIONS[alert].find(f"**{part}") for part in PARTS]
    assert -1 not in found, dict(zip(PARTS, found, strict=True))
    assert found == sorted(found)
    assert commands(SECTIONS[alert]), "there is always something to look at"


@pytest.mark.parametrize("alert", SECTIONS)
def test_every_command_can_be_pasted(alert: str) -> None:
    assert [told for words in commands(SECTIONS[alert]) if (told := problem(words))] == []


def test_a_command_that_does_not_exist_would_be_found() -> None:
    assert problem(["admin", "locks"])
    assert problem(["log-level", "loud"])
    assert problem(["status", "--hard"])
    assert "status" in COMMANDS
    assert not problem(["status"])


def test_every_event_metric_and_key_that_it_names_exists() -> None:
    words = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", TEXT)) | set(re.findall(r"\b([a-z]+\.[a-z_]+)[,;:)`]", TEXT))
    assert log.hub_invariant.__doc__, "with the module all events are declared"
    areas = {name.partition(".")[0] for name in EVENTS}
    sections = {name.partition(".")[0] for name in KEYS}
    known = set(EVENTS) | set(KEYS) | {name.rpartition(".")[0] for name in KEYS}
    named = {word for word in words if word.partition(".")[0] in areas | sections}
    assert named
    assert {word for word in named - known if word not in sections} == set()
    metrics = set(re.findall(r"\bzkside_[a-z_]+", TEXT))
    documented = (ROOT / "docs" / "operations.md").read_text()
    assert {metric for metric in metrics if metric not in documented} == set()


def test_links_within_the_page_lead_somewhere() -> None:
    assert set(re.findall(r"\]\(#([a-z]+)\)", TEXT)) <= {alert.lower() for alert in SECTIONS}
