"""The command `zkside`: its global options, and which module holds which command."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

import zkside as package
from zkside.cli.global_options import accept_global_options, global_options
from zkside.cli.invocation import Invocation
from zkside.cli.manual import write_into
from zkside.cli.output import Format

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("serve", "Run the daemon."),
    "dev": ("dev", "Run a private ZooKeeper and a daemon on it, for development."),
    "status": ("status", "Show the daemon and its session in figures."),
    "health": ("status", "Tell by the exit code whether the daemon serves."),
    "doctor": ("doctor", "Check everything between this shell and ZooKeeper."),
    "config": ("config", "Check, print or reload the daemon's configuration."),
    "log-level": ("log_level", "Show or change what the running daemon logs."),
    "drain": ("drain", "Take a daemon out of service, and wait until nothing is left."),
    "debug": ("debug", "Gather what is needed to find a fault."),
    "policy": ("policy", "Check a policy, or explain what it decides."),
    "get": ("node", "Print a node's data."),
    "set": ("node", "Replace a node's data."),
    "create": ("node", "Create a node."),
    "delete": ("node", "Delete a node."),
    "stat": ("listing", "Print a node's Stat."),
    "ls": ("listing", "List children."),
    "tree": ("listing", "Draw a subtree."),
    "watch": ("watch", "Print what changes, as it changes."),
    "txn": ("txn", "Apply several operations, all or none."),
    "acl": ("acl", "Read or replace a node's access control list."),
    "hold": ("hold", "Hold an ephemeral node until Ctrl-C."),
    "lock": ("lock", "Run a command while holding a lock."),
    "elect": ("elect", "Run a command while leading."),
    "join": ("join", "Be a member of a group, while a command runs."),
    "who": ("who", "Tell who holds a lock or leads, and who waits."),
    "observe": ("observe", "Print who leads, as it changes."),
    "members": ("members", "Print the members of a group, as they change."),
    "admin": ("admin", "Look into the daemon: holds, watches, streams; drain it."),
    "protos": ("protos", "Print where the protos are, for generating stubs."),
    "completion": ("completion", "Print the completion script of a shell."),
}

ATTRIBUTES = {"set": "set_", "log-level": "log_level"}
DAEMON_COMMANDS = ("serve", "protos", "completion")
"""Those that talk to no daemon: `-a` behind them would mean nothing."""


ROOT_EPILOG = """\
Every option of here may stand behind the command too. A DURATION is 500ms, 10s, 2m, 1h, or a number of seconds; a PATH
begins with / and counts from the chroot of the daemon.

\b
Examples:
  zkside dev                              # something to try it on; Ctrl-C ends it
  zkside create -p /config/colour blue
  zkside watch -R /config                 # what is there, then every change
  zkside lock /locks/backup -- backup.sh  # one at a time over all hosts
  zkside doctor                           # what is wrong between this shell and ZooKeeper

Each command's --help has its exit statuses, its environment and examples; docs/cli.md has all of them.
"""


class LazyGroup(click.Group):
    """Loads the module of a command when that command runs: `zkside get` does not load the daemon."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"zkside.cli.{module}"), ATTRIBUTES.get(cmd_name, cmd_name))
        if cmd_name not in DAEMON_COMMANDS:
            accept_global_options(command)
        write_into(command, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=ROOT_EPILOG,
)
@click.version_option(package.__version__, "-V", "--version", prog_name="zkside")
@global_options
@click.pass_context
def zkside(ctx: click.Context, /, **options: Any) -> None:
    """One ZooKeeper session for every process of this host.

    `zkside dev` starts something to try it on.
    """
    ctx.obj = Invocation(
        address=options["address"],
        ca=options["ca"],
        cert=options["cert"],
        key=options["key"],
        server_name=options["server_name"],
        token_file=options["token_file"],
        output=Format(options["output"]),
        timeout_s=options["timeout"],
        consistency=options["consistency"],
    )
