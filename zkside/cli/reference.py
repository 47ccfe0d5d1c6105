"""The generated parts of docs/cli.md."""

from __future__ import annotations

import click

from zkside.cli.exits import MEANINGS
from zkside.cli.manual import PAGES
from zkside.cli.root import COMMANDS, zkside

FROM_CONFIGURATION = ("serve", "config check", "config print")
"""Their flags are the keys of docs/configuration.md."""


def exit_codes() -> str:
    """The table of exit codes."""
    rows = [f"| {code} | {meaning} |" for code, meaning in MEANINGS.items()]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])


def commands() -> str:
    """Every command with its synopsis, its promise and its options."""
    root = click.Context(zkside, info_name="zkside")
    lines: list[str] = []
    for name in COMMANDS:
        command = zkside.get_command(root, name)
        assert command is not None
        if isinstance(command, click.Group):
            for nested in command.commands.values():
                lines += _section(f"{name} {nested.name}", nested)
        else:
            lines += _section(name, command)
    return "\n".join(lines)


def _section(name: str, command: click.Command) -> list[str]:
    context = click.Context(command, info_name=f"zkside {name}")
    synopsis = " ".join([f"zkside {name}", *command.collect_usage_pieces(context)])
    promise = (command.help or "").replace("\b\n", "")
    paragraphs = [" ".join(part.split()) for part in promise.split("\n\n") if not part.startswith("  ")]
    lines = [f"### `{synopsis}`", ""]
    for paragraph in paragraphs:
        lines += [paragraph, ""]
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if name in FROM_CONFIGURATION:
        lines += ["Options: `--config FILE`, and a flag for each key of [the configuration](configuration.md).", ""]
    elif options:
        lines += ["| option | meaning |", "|---|---|"]
        lines += [f"| {_names(one)} | {one.help or ''} |" for one in options]
        lines.append("")
    if name in PAGES:
        page = PAGES[name]
        codes = ", ".join(str(code) for code in sorted(set(page.statuses)))
        lines += [f"Ends with {codes}{', or as the command that it ran' if page.passes_on else ''}.", ""]
        lines += ["```sh", *(f"{line}  # {told}" for line, told in page.examples), "```", ""]
    return lines


def _names(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    if option.is_flag:
        return names
    choices = option.type.choices if isinstance(option.type, click.Choice) else None
    if choices:
        return names + " " + " \\| ".join(map(str, choices))
    return f"{names} {option.metavar or option.type.name.upper()}"
