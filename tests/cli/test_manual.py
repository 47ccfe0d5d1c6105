"""The help of every command is a manual page: what it does, its options, its exit statuses, examples that parse."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest

from tests.cli.conftest import page_of
from zkside.cli import exits
from zkside.cli.manual import PAGES
from zkside.cli.root import COMMANDS
from zkside.cli.root import zkside as root

CONTEXT = click.Context(root, info_name="zkside")


def leaves() -> Iterator[tuple[str, click.Command]]:
    for name in COMMANDS:
        command = root.get_command(CONTEXT, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {nested.name}", nested) for nested in command.commands.values())
        else:
            yield name, command


LEAVES = dict(leaves())


def test_every_command_has_a_page_and_every_page_a_command() -> None:
    assert set(PAGES) == set(LEAVES)


@pytest.mark.parametrize("name", PAGES)
def test_the_help_is_whole(name: str) -> None:
    text = LEAVES[name].get_help(click.Context(LEAVES[name], info_name=f"zkside {name}"))
    parts = ["Usage:", "Options:", "Exit status:", "Examples:"]
    found = [text.find(part) for part in parts]
    assert -1 not in found, text
    assert found == sorted(found)
    assert LEAVES[name].help, "what it does"
    assert f"  {exits.OK}      done" in text
    for line, _ in PAGES[name].examples:
        assert line in text


@pytest.mark.parametrize("name", PAGES)
def test_every_option_says_what_it_is_for(name: str) -> None:
    for option in LEAVES[name].params:
        if isinstance(option, click.Option) and not option.hidden:
            assert (option.help or "").rstrip().endswith((".", ")")), f"{name} {option.opts}"


@pytest.mark.parametrize("line", [line for page in PAGES.values() for line, _ in page.examples])
def test_every_example_can_be_typed(line: str) -> None:
    parts = [*split(line)]
    assert parts, "an example of something else"
    for part in parts:
        node: click.Command = root
        context = root.make_context("zkside", part)
        with context:
            assert root.callback is not None
            context.invoke(root.callback, **context.params)
        rest = [*context._protected_args, *context.args]
        assert rest, line
        while isinstance(node, click.Group) and rest:
            found = node.get_command(context, rest[0])
            assert found is not None, f"{line}: no {rest[0]}"
            node, rest = found, rest[1:]
            if isinstance(node, click.Group):
                context = click.Context(node, parent=context)
        node.make_context("zkside", rest, parent=context)


def split(line: str) -> Iterator[list[str]]:
    """The words of each `zkside …` in a shell's line, without pipes and redirections."""
    words = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
    words.whitespace_split = True
    part: list[str] | None = None
    begins = True
    for word in words:
        if set(word) <= set("|&;<>()"):
            if part is not None:
                yield part
            part, begins = None, word not in (">", "<")
        elif begins and word == "zkside":
            part, begins = [], False
        elif part is not None:
            part.append(word)
        elif "$(zkside " in word:
            yield from split(word.strip("$()"))
        else:
            begins = False
    if part is not None:
        yield part


def test_the_statuses_of_a_run_are_looked_up_by_its_command() -> None:
    assert page_of(("-o", "json", "admin", "holds")) is PAGES["admin holds"]
    assert page_of(("get", "/set")) is PAGES["get"]
    assert page_of(("--help",)) is None
