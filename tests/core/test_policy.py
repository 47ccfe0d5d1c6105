"""Who may do what: parsing a policy, knowing a caller, deciding."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkside.core.policy import Identity, Policy, Rule, Verb, decide
from zkside.core.policy_document import PolicyError, parse
from zkside.model import path as paths
from zkside.model.identity import Peer

POLICY = """
[identities.billing]
callers = ["listener:billing", "uri:spiffe://example.org/billing", "cn:billing", "token:billing"]
chroot = "/apps/billing"
[identities.billing.quotas]
streams = 10
holds = 0
[[identities.billing.rules]]
path = "/apps/billing"
verbs = ["read", "write", "hold"]

[identities.ops]
callers = ["dns:ops.example.org", "token:ops"]
[[identities.ops.rules]]
name = "everything"
path = "/"
verbs = ["read", "admin"]
[[identities.ops.rules]]
path = "/apps"
verbs = ["read", "write"]

[identities.guest]
callers = ["anyone"]
[[identities.guest.rules]]
path = "/public"
verbs = ["read"]
"""


def policy(text: str = POLICY) -> Policy:
    return parse(tomllib.loads(text))


def problems(text: str) -> str:
    with pytest.raises(PolicyError) as raised:
        policy(text)
    return str(raised.value)


def known(listener: str = "", *names: str) -> str | None:
    found = policy().identify(Peer("unix:/s", listener, names))
    return None if found is None else found.name


def test_a_policy_is_read_as_it_is_written() -> None:
    """Identities, rules with names, quotas, chroots."""
    read = policy()
    billing, ops = read.identities["billing"], read.identities["ops"]
    assert (billing.chroot, billing.limits.streams, billing.limits.holds, billing.limits.calls) == (
        "/apps/billing", 10, 0, None,
    )  # fmt: skip
    assert [rule.name for rule in ops.rules] == ["everything", "ops:/apps"]
    assert billing.rules[0].verbs == {Verb.READ, Verb.WRITE, Verb.HOLD}


def test_what_a_caller_has_proven_counts_before_the_way_it_came_by() -> None:
    """Token, then certificate, then listener, then anyone."""
    assert known() == "guest"
    assert known("billing") == "billing"
    assert known("billing", "token:ops") == "ops"
    assert known("billing", "dns:ops.example.org") == "ops"
    assert known("", "cn:billing", "dns:ops.example.org") == "ops"
    assert known("", "uri:spiffe://example.org/billing", "dns:ops.example.org") == "billing"
    assert known("nobody") == "guest"
    assert known("", "cn:unknown") == "guest"


def test_a_token_that_the_policy_does_not_name_stands_for_nobody() -> None:
    """A token that was taken out of the policy does not turn its holder into somebody else."""
    assert known("billing", "token:withdrawn") is None
    assert known("billing", "cn:billing", "token:withdrawn") is None


@pytest.mark.parametrize("name", ["TOKEN:ops", "token:ops ", "token:Ops", "xtoken:ops", "listener:billing", "anyone"])
def test_a_name_is_known_only_as_it_is_written(name: str) -> None:
    """No folding of case, no trimming; and what is no proof is none."""
    assert known("", name) in (None, "guest")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "identities: there is none"),
        ("identities = 1", "identities: must be a table"),
        ("[identity.x]", "identity: is not known: did you mean 'identities'?"),
        ("[identities.x]", "identities.x.callers: must be a list"),
        ('[identities."a b"]', "identities.a b: a name has"),
        ('[identities.x]\ncallers = ["me"]', 'identities.x.callers[0]: must be "listener:NAME"'),
        ('[identities.x]\ncallers = ["token:"]', "identities.x.callers[0]"),
        ('[identities.x]\ncallers = ["anyone", "anyone"]', "identities.x.callers: 'anyone' stands there twice"),
        (
            '[identities.x]\ncallers = ["cn:a"]\n[identities.y]\ncallers = ["cn:a"]',
            "identities.y.callers: 'cn:a' stands there and identities.x.callers too",
        ),
        ('[identities.x]\ncallers = ["cn:a"]\nverbs = []', "identities.x.verbs: is not known"),
        ('[identities.x]\ncallers = ["cn:a"]\nchroot = "app"', "identities.x.chroot: a path must begin with '/'"),
        ('[identities.x]\ncallers = ["cn:a"]\nchroot = "/"', 'identities.x.chroot: "/" is where everybody begins'),
        ('[identities.x]\ncallers = ["cn:a"]\nchroot = "/a/../b"', "identities.x.chroot: relative names"),
        ('[identities.x]\ncallers = ["cn:a"]\nchroot = "/a b"', "identities.x.chroot: '/a b' has spaces"),
        ('[identities.x]\ncallers = ["cn:a"]\n[identities.x.quotas]\nhold = 1', "did you mean 'holds'?"),
        ('[identities.x]\ncallers = ["cn:a"]\n[identities.x.quotas]\nholds = -1', "quotas.holds: must be a number"),
        ('[identities.x]\ncallers = ["cn:a"]\n[identities.x.quotas]\nholds = true', "quotas.holds: must be a number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(text: str, complaint: str) -> None:
    assert complaint in problems(text)


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ('verbs = ["read"]', "rules[0].path: must be the path of a node"),
        ('path = "/a"', "rules[0].verbs: must be a list of read, write, hold, admin"),
        ('path = "/a"\nverbs = []', "rules[0].verbs: must be a list"),
        ('path = "/a"\nverbs = ["create"]', "rules[0].verbs[0]: must be one of"),
        ('path = "/a"\nverbs = [["read"]]', "rules[0].verbs[0]: must be one of"),
        ('path = "/a"\nverbs = ["read", "read"]', "rules[0].verbs[1]: 'read' stands there twice"),
        ('path = "/a/"\nverbs = ["read"]', "rules[0].path: a path must not end with '/'"),
        ('path = "a"\nverbs = ["read"]', "rules[0].path: a path must begin with '/'"),
        ('path = "/a//b"\nverbs = ["read"]', "rules[0].path: empty name"),
        ('path = "/a"\nverb = ["read"]', "rules[0].verb: is not known: did you mean 'verbs'?"),
        ('path = "/a"\nverbs = ["read"]\nname = ""', "rules[0].name: must be text"),
        (
            'path = "/a"\nverbs = ["read"]\n[[identities.x.rules]]\npath = "/a"\nverbs = ["write"]',
            "rules[1].path: identities.x.rules[0] is for '/a' too",
        ),
        (
            'name = "n"\npath = "/a"\nverbs = ["read"]\n'
            '[[identities.x.rules]]\nname = "n"\npath = "/b"\nverbs = ["read"]',
            "rules[1].name: another rule is called 'n' too",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_rule_is_named_with_its_place(rule: str, complaint: str) -> None:
    assert complaint in problems(f'[identities.x]\ncallers = ["cn:a"]\n[[identities.x.rules]]\n{rule}')


def test_a_rule_outside_of_the_chroot_is_refused() -> None:
    """It would allow nothing, so it was meant otherwise; one above the chroot covers it."""
    base = '[identities.x]\ncallers = ["cn:a"]\nchroot = "/a/b"\n[[identities.x.rules]]\nverbs = ["read"]\n'
    assert "outside of the chroot" in problems(f'{base}path = "/a/bc"')
    assert policy(f'{base}path = "/a"').identities["x"].rules
    assert policy(f'{base}path = "/a/b/c"').identities["x"].rules


def test_all_problems_are_told_at_once() -> None:
    told = problems('[identities.x]\ncallers = ["me"]\nchroot = "no"\n[identities.y]\nnope = 1').splitlines()
    assert len(told) == 4


def one(*rules: tuple[str, str], chroot: str = "") -> Identity:
    made = (Rule(path, path, frozenset(map(Verb, verbs.split()))) for path, verbs in rules)
    return Identity("x", ("anyone",), tuple(made), chroot)


def test_a_rule_covers_whole_names() -> None:
    """/app does not cover /apple, and nothing is unescaped, folded or normalised."""
    identity = one(("/app", "read"), ("/caf\u00e9", "read"))
    assert decide(identity, Verb.READ, "/app").allowed
    assert decide(identity, Verb.READ, "/app/x/y").allowed
    for path in ("/", "/ap", "/apple", "/App", "/app%2Fx", "/%61pp", "/cafe\u0301", "/caf\u00e9s", "/app\u200b"):
        assert not decide(identity, Verb.READ, path).allowed, path
    assert not decide(identity, Verb.WRITE, "/app").allowed


@pytest.mark.parametrize(
    "path", ["", "app", "/app/", "/app/..", "/app/../app", "/./app", "//app", "/app\x00", "/" + "x" * 70_000]
)
def test_what_is_no_path_is_denied_whatever_the_rules_say(path: str) -> None:
    assert not decide(one(("/", "read")), Verb.READ, path).allowed


def test_a_decision_names_the_rule_with_the_longest_path() -> None:
    identity = one(("/", "read"), ("/app", "read write"), ("/app/data", "write"))
    decision = decide(identity, Verb.READ, "/app/data/x")
    assert decision.rule is not None
    assert decision.rule.path == "/app"
    assert decision.why == "rule '/app' allows read and write on /app and below it"
    assert decide(identity, Verb.ADMIN, "/app/x").why == (
        "no rule of 'x' allows admin on /app/x; rule '/app' allows read and write there"
    )
    assert decide(one(), Verb.READ, "/x").why == "no rule of 'x' allows anything on /x"


def test_nothing_outside_of_the_chroot_is_allowed_whatever_the_rules_say() -> None:
    identity = one(("/", "read admin"), chroot="/a/b")
    assert decide(identity, Verb.READ, "/a/b").allowed
    assert decide(identity, Verb.READ, "/a/b/c").allowed
    for path in ("/", "/a", "/a/bc", "/a/c"):
        assert not decide(identity, Verb.READ, path).allowed


NAMES = st.sampled_from(["a", "b", "ab", "A", "..", ".", "", "%2e"])
PATHS = st.lists(NAMES, max_size=4).map(lambda names: "/" + "/".join(names))
GOOD = PATHS.filter(lambda path: path == "/" or all(name not in ("", ".", "..") for name in path[1:].split("/")))
RULES = st.lists(
    st.tuples(GOOD, st.sampled_from(["read", "write", "read write"])), max_size=4, unique_by=lambda rule: rule[0]
)


@given(RULES, PATHS, st.sampled_from([Verb.READ, Verb.WRITE]))
def test_a_decision_is_what_comparing_lists_of_names_says(rules: list[tuple[str, str]], path: str, verb: Verb) -> None:
    def names(of: str) -> list[str]:
        return [] if of == "/" else of[1:].split("/")

    covering = [r for r, v in rules if verb.value in v.split() and names(path)[: len(names(r))] == names(r)]
    is_good = path == "/" or all(name not in ("", ".", "..") for name in names(path))
    decision = decide(one(*rules), verb, path)
    assert decision.allowed == (is_good and bool(covering))
    if decision.rule is not None:
        assert paths.is_within(path, decision.rule.path)
