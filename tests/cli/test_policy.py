"""policy check and policy explain: a dry run, without a daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run, Zkside
from zkside.cli import exits

EXAMPLE = Path(__file__).parents[2] / "deploy" / "policy" / "policy.toml"


def explain(*arguments: str) -> Run:
    return Zkside("unix:/nowhere")("policy", "explain", str(EXAMPLE), *arguments)


def test_the_example_is_a_policy() -> None:
    done = Zkside("unix:/nowhere")("policy", "check", str(EXAMPLE))
    assert (done.code, done.out) == (exits.OK, "valid; identities: 5, rules: 6\n")


def test_what_is_wrong_is_told_with_its_place(tmp_path: Path) -> None:
    """All of it at once; also that it is no TOML, or no file."""
    file = tmp_path / "policy.toml"
    file.write_text('[identities.x]\ncallers = ["me"]\n[[identities.x.rules]]\npath = "a"\nverbs = ["read"]\n')
    done = Zkside("unix:/nowhere")("policy", "check", str(file))
    assert done.code == exits.CANNOT_START
    assert "identities.x.callers[0]" in done.err
    assert "identities.x.rules[0].path" in done.err
    file.write_text("[identities\n")
    assert "is not TOML" in Zkside("unix:/nowhere")("policy", "check", str(file)).err
    assert "cannot be read" in Zkside("unix:/nowhere")("policy", "check", str(tmp_path / "no")).err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--identity", "billing", "write", "/invoices"), exits.OK, "rule 'billing:/apps/billing' allows read, write"),
        (("--identity", "billing", "admin", "/"), exits.DENIED, "no rule of 'billing' allows admin on /apps/billing;"),
        (("--identity", "billing", "read", "/../other"), exits.DENIED, "no path that ZooKeeper takes"),
        (("--identity", "worker", "hold", "/crew/locks/a"), exits.OK, "rule 'locks of the crew'"),
        (("--identity", "worker", "hold", "/crew/locksmith"), exits.DENIED, "allows anything on /crew/locksmith"),
        (("--caller", "token:deploy", "write", "/config"), exits.OK, "rule 'deploy:/config'"),
        (("--caller", "listener:billing", "--caller", "token:deploy", "write", "/config"), exits.OK, "deploy"),
        (("--caller", "token:gone", "read", "/public"), exits.DENIED, "no identity for this caller"),
        (("--caller", "cn:somebody", "read", "/public"), exits.OK, "rule 'guest:/public'"),
        (("--identity", "nobody", "read", "/"), exits.USAGE, "no identity 'nobody': it has billing, worker"),
        (("read", "/"), exits.USAGE, "give --identity or --caller"),
    ],
)  # fmt: skip
def test_a_decision_is_explained_and_the_exit_code_says_it(arguments: tuple[str, ...], code: int, words: str) -> None:
    """0: allowed, 7: not."""
    done = explain(*arguments)
    assert done.code == code
    assert words in done.out + done.err


def test_a_decision_in_json_has_the_node_of_the_tree() -> None:
    done = Zkside("unix:/nowhere")(
        "-o", "json", "policy", "explain", str(EXAMPLE), "--identity", "billing", "read", "/x"
    )
    assert done.json["node"] == "/apps/billing/x"
    assert (done.json["allowed"], done.json["rule"]) == (True, "billing:/apps/billing")
