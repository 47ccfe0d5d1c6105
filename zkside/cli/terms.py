"""The options that `lock`, `elect` and `join` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from zkside.cli.arguments import ACL, DURATION

if TYPE_CHECKING:
    from zkside.client import Acl


@dataclass(frozen=True, slots=True)
class Terms:
    """As they were given."""

    command: tuple[str, ...]
    grace_s: float | None
    kill_after_s: float
    wait_for_ready: bool
    acl: tuple[Acl, ...]
    wait_timeout_s: float | None = None
    margin_s: float = 0.0

    @property
    def of_hold(self) -> dict[str, Any]:
        """As arguments of the client's methods."""
        return {
            "reconnect_grace_s": self.grace_s,
            "acl": self.acl or None,
            "wait_for_ready": self.wait_for_ready,
            "cancel_on_loss": False,
        }


_COMMON = (
    click.argument("command", nargs=-1, type=click.UNPROCESSED),
    click.option(
        "--grace",
        type=DURATION,
        default="5s",
        show_default=True,
        help="Stay the holder so long without the daemon: a restart of it harms nobody. 0: let go at once.",
    ),
    click.option(
        "--kill-after",
        type=DURATION,
        default="10s",
        show_default=True,
        help="SIGKILL so long after zkside's own SIGTERM, to a command whose hold is in danger or to what a command "
        "left behind; sooner if the lease ends. A SIGTERM that you send is passed on, and no SIGKILL follows.",
    ),
    click.option("--wait", "wait_for_ready", is_flag=True, help="Wait for a daemon that is not there yet."),
    click.option("--acl", type=ACL, multiple=True, help="scheme:id:permissions, repeatable."),
)
_QUEUEING = (
    click.option("-w", "--timeout", "wait_timeout", type=DURATION, help="Give up after waiting so long."),
    click.option("-n", "--nonblock", is_flag=True, help="Try once: do not wait for others."),
    click.option(
        "--margin",
        type=DURATION,
        default="2s",
        show_default=True,
        help="SIGTERM so long before the lease ends while ZooKeeper cannot be reached.",
    ),
)


def holding_options(*, queues: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare the options; the command gets them as `terms`."""

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def command(*arguments: Any, **options: Any) -> None:
            shared = {name: options.pop(name) for name in ("command", "wait_for_ready", "acl")}
            limits: dict[str, Any] = {}
            if queues:
                nonblock, timeout_s = options.pop("nonblock"), options.pop("wait_timeout")
                if nonblock and timeout_s:
                    raise click.UsageError("give --timeout or -n, not both")
                limits = {"wait_timeout_s": 0.0 if nonblock else timeout_s, "margin_s": options.pop("margin")}
            terms = Terms(
                grace_s=options.pop("grace") or None, kill_after_s=options.pop("kill_after"), **shared, **limits
            )
            function(*arguments, terms=terms, **options)

        for option in reversed((*_COMMON[:1], *(_QUEUEING if queues else ()), *_COMMON[1:])):
            command = option(command)
        return command

    return declare
