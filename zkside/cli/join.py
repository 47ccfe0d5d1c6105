"""join."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zkside.cli.arguments import DURATION, PATH, data_argument
from zkside.cli.holding import Holder
from zkside.cli.invocation import Invocation, pass_invocation
from zkside.cli.terms import Terms, holding_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from zkside.client import Client, Held, HoldStatus

_SERVICE_KEYS: dict[str, tuple[str, type]] = {
    "name": ("name", str),
    "id": ("id", str),
    "address": ("address", str),
    "port": ("port", int),
    "sslPort": ("ssl_port", int),
    "uriSpec": ("uri_spec", str),
    "enabled": ("enabled", bool),
}


class ServiceType(click.ParamType[dict[str, Any]]):
    """A JSON object with the names of Curator's service discovery; its values as fields of a ServiceInstance."""

    name = "json"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        try:
            given = json.loads(str(value))
        except ValueError as error:
            self.fail(f"this is no JSON: {error}", param, ctx)
        if not isinstance(given, dict):
            self.fail("this is no JSON object", param, ctx)
        fields: dict[str, Any] = {}
        for key, found in given.items():
            if key == "payload":
                fields[key] = json.dumps(found)
                continue
            if key not in _SERVICE_KEYS:
                self.fail(f"there is no {key!r}, only {', '.join(_SERVICE_KEYS)} and payload", param, ctx)
            field, kind = _SERVICE_KEYS[key]
            if type(found) is not kind:
                self.fail(f"{key!r} takes a {kind.__name__}", param, ctx)
            fields[field] = found
        return fields


@click.command()
@click.argument("group", type=PATH)
@click.option("--id", "member_id", default="", help="Names the member. Default: a new UUID, or the service's id.")
@click.option("--data", help="The member's data; '-' is standard input.")
@click.option(
    "--service",
    type=ServiceType(),
    metavar="JSON",
    help="Instead of data: an instance for Curator's service discovery, such as "
    '\'{"address": "10.0.0.1", "port": 80}\'.',
)
@click.option(
    "--on-exists",
    type=click.Choice(["fail", "wait", "replace"]),
    default="fail",
    show_default=True,
    help="If there is a member of this id: wait until it has gone, or take its place if it is nobody's on this host "
    "and has the same data.",
)
@click.option(
    "-w", "--timeout", "wait_timeout_s", type=DURATION, help="With --on-exists: give up after waiting so long."
)
@holding_options(queues=False)
@pass_invocation
def join(
    invocation: Invocation,
    group: str,
    member_id: str,
    data: str | None,
    service: dict[str, Any] | None,
    on_exists: str,
    wait_timeout_s: float | None,
    terms: Terms,
) -> None:
    """Be a member of GROUP while COMMAND runs; without COMMAND until a signal.

    A membership is entered again in a new session, and the command goes on meanwhile: ZKSIDE_FENCING_TOKEN
    tells the first one's token. Only when somebody takes the membership away is the command ended, with exit
    code 11.
    """
    if data is not None and service is not None:
        raise click.UsageError("give --data or --service, not both")
    if wait_timeout_s is not None and on_exists == "fail":
        raise click.UsageError("--timeout goes with --on-exists wait or replace")
    content = data_argument(data, None)

    def make(client: Client, on_update: Callable[[HoldStatus], None]) -> Held:
        from zkside.client import OnExists, ServiceInstance

        instance = None if service is None else ServiceInstance(**service)
        return client.join(
            group,
            member_id=member_id,
            data=content,
            service=instance,
            on_exists=OnExists[on_exists.upper()],
            wait_timeout_s=wait_timeout_s,
            on_update=on_update,
            **terms.of_hold,
        )

    Holder(invocation, terms, leased=False).run(make)
