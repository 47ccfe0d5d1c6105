"""What stands below the options in the help of every command: exit statuses, environment, examples.

One page for each command, written into its help when it is loaded, and into docs/cli.md. A test asks each command for
its page and parses every example.
"""

from __future__ import annotations

from dataclasses import dataclass

import click

from zkside.cli import exits
from zkside.cli.global_options import GLOBAL_OPTIONS

LOCAL = (exits.OK, exits.ERROR, exits.USAGE)
CALL = (*LOCAL, exits.DENIED, exits.UNAVAILABLE, exits.TIMEOUT, exits.NOT_SUPPORTED, exits.INTERRUPTED)
"""Of whatever calls a daemon."""
READ = (*CALL, exits.NOT_FOUND, exits.LOST, exits.TOO_LARGE)
WRITE = (*CALL, exits.OUTCOME_UNKNOWN, exits.LOST, exits.TOO_LARGE)
FOLLOW = (*CALL, exits.LOST, exits.TOO_LARGE)
HOLD = (*WRITE, exits.REFUSED, exits.NOT_GRANTED, exits.HUNG_UP, exits.QUIT, exits.TERMINATED)
RUN = (*HOLD, exits.CANNOT_RUN, exits.NO_COMMAND)
DAEMON = (*LOCAL, exits.CANNOT_START, exits.INTERRUPTED)

CLIENT_VARIABLES = tuple(str(settings["envvar"]) for _, settings in GLOBAL_OPTIONS.values() if "envvar" in settings)
CHILD_VARIABLES = ("ZKSIDE_PATH", "ZKSIDE_FENCING_TOKEN", "ZKSIDE_HOLD_ID")
OF_CLIENTS = f"{', '.join(CLIENT_VARIABLES)}: see `zkside --help`."
OF_DAEMON = (
    "ZKSIDE_CONFIG: the TOML file. ZKSIDE_…: a variable for each key, such as ZKSIDE_ZOOKEEPER_HOSTS; flags win over "
    "them, they win over the file."
)
OF_CHILD = f"{OF_CLIENTS} The command gets {', '.join(CHILD_VARIABLES)} and ZKSIDE_ADDRESS."


@dataclass(frozen=True, slots=True)
class Page:
    """Of one command."""

    statuses: tuple[int, ...]
    environment: str
    examples: tuple[tuple[str, str], ...]
    """(command line, what it is for)"""
    passes_on: bool = False
    """Whether it ends as the command does that it runs."""


def _page(statuses: tuple[int, ...], *examples: tuple[str, str], environment: str = OF_CLIENTS) -> Page:
    return Page(statuses, environment, examples)


def _runs(*examples: tuple[str, str], more: tuple[int, ...] = ()) -> Page:
    return Page((*RUN, *more), OF_CHILD, examples, passes_on=True)


PAGES: dict[str, Page] = {
    "serve": _page(
        DAEMON,
        ("zkside serve", "with /etc/zkside/zkside.toml"),
        ("zkside serve --config ./zkside.toml --log-level debug", "with another file, and more lines"),
        ("zkside serve --zookeeper-hosts zk1:2181,zk2:2181/app --state-dir /var/lib/zkside", "without a file"),
        environment=OF_DAEMON,
    ),
    "dev": _page(
        DAEMON,
        ("zkside dev", "a private ZooKeeper and a daemon on it"),
        ("zkside dev --memory", "without Java"),
        ("zkside -a 127.0.0.1:7222 dev --data ./zookeeper", "at another address, and kept for the next time"),
    ),
    "status": _page(
        CALL, ("zkside status", "for people"), ("zkside -o json status | jq .session.state", "for scripts")
    ),
    "health": _page(
        CALL,
        ("zkside health", "is it alive?"),
        ("zkside health -s zkside.v1.LockService", "can locks be had? as a readiness probe"),
    ),
    "doctor": _page(
        CALL,
        ("zkside doctor", "what is wrong between this shell and ZooKeeper"),
        ("zkside -o json doctor | jq 'select(.level != \"ok\")'", "only what is not in order"),
    ),
    "config check": _page(
        DAEMON,
        ("zkside config check --config new.toml && mv new.toml /etc/zkside/zkside.toml", "before it counts"),
        environment=OF_DAEMON,
    ),
    "config print": _page(
        DAEMON,
        ("zkside config print", "what is in force, and from where"),
        ("zkside -o json config print | jq -r 'select(.origin != \"default\") | .key'", "what is not at its default"),
        environment=OF_DAEMON,
    ),
    "config reload": _page(
        (*CALL, exits.CANNOT_START), ("zkside config check && zkside config reload", "after a change of the file")
    ),
    "log-level": _page(
        CALL,
        ("zkside log-level", "what it is"),
        ("zkside log-level debug --for 10m", "everything, for ten minutes"),
        ("zkside log-level debug --logger zkside.hold", "who gets and loses which hold"),
        ("zkside log-level default", "as configured again"),
    ),
    "drain": _page(
        CALL,
        ("zkside drain && systemctl stop zkside", "before a host goes for good"),
        ("zkside drain --within 10s", "no longer than that; then 9, and it goes on"),
    ),
    "debug bundle": _page(
        CALL,
        ("zkside debug bundle", "into the working directory"),
        ("zkside debug bundle -f /tmp/zkside.tar.gz && tar -tzf /tmp/zkside.tar.gz", "elsewhere, and what it has"),
        environment=f"{OF_CLIENTS} {OF_DAEMON}",
    ),
    "debug dump": _page(
        CALL,
        ("zkside debug dump > state.json", "the state at this moment"),
        ("zkside debug dump | jq '.tasks[] | {count, stack}'", "where its tasks wait"),
    ),
    "debug log": _page(CALL, ("zkside debug log | jq -r 'select(.level == \"error\") | .message'", "what went wrong")),
    "policy check": _page(DAEMON, ("zkside policy check /etc/zkside/policy.toml", "before it counts")),
    "policy explain": _page(
        (*DAEMON, exits.DENIED),
        ("zkside policy explain /etc/zkside/policy.toml --identity web read /app/config", "may web read it, and why?"),
    ),
    "get": _page(
        READ,
        ("zkside get /app/config/limit", "the data, for people"),
        ("zkside get --raw /app/logo > logo.png", "the very bytes"),
        ("zkside get -c cached --max-stale 5s /app/config/limit", "from the cache, if it is not older"),
        ("zkside get -c linearizable /app/config/limit", "with all that was written before, by anybody"),
    ),
    "set": _page(
        (*WRITE, exits.NOT_FOUND, exits.VERSION_CONFLICT),
        ("zkside set /app/config/limit 20", "whatever is there"),
        ("zkside set /app/config/limit 20 --version 3", "if nobody else changed it meanwhile"),
        ("zkside set /app/logo -f logo.png", "a file's bytes"),
    ),
    "create": _page(
        (*WRITE, exits.NOT_FOUND, exits.EXISTS, exits.REFUSED),
        ("zkside create -p /app/config/limit 10", "with its parents"),
        ("zkside create -s /queue/job- 'the work'", "with a number behind its name"),
        ("zkside create /app/token abc --ttl 1h", "gone an hour after its last change"),
    ),
    "delete": _page(
        (*WRITE, exits.NOT_FOUND, exits.VERSION_CONFLICT, exits.REFUSED),
        ("zkside delete /app/config/limit", "a node without children"),
        ("zkside delete -r /app/old", "with all below it, one by one"),
    ),
    "stat": _page(READ, ("zkside stat /app/config", "versions, times, owner, number of children")),
    "ls": _page(READ, ("zkside ls /app", "the children"), ("zkside ls -lR /app", "all below, with their Stats")),
    "tree": _page(READ, ("zkside tree /app --data", "with data"), ("zkside tree / -d 2", "two levels")),
    "watch": _page(
        (*FOLLOW, exits.NOT_FOUND),
        ("zkside watch /app/config/limit", "a node: what it is, then what it becomes"),
        ("zkside -o json watch -R /app", "a subtree, for programs"),
        ("zkside watch --events --kind children --one-shot /app", "as ZooKeeper's own getChildren watch"),
    ),
    "txn": _page(
        (*WRITE, exits.NOT_FOUND, exits.EXISTS, exits.VERSION_CONFLICT, exits.REFUSED),
        ("zkside txn 'check /app/colour 1' 'set /app/colour red' 'create /app/size 7'", "all or none"),
        ("zkside txn --guard \"$ZKSIDE_HOLD_ID\" 'set /app/state done'", "only while that lock is held"),
    ),
    "acl get": _page(READ, ("zkside acl get /app", "who may do what")),
    "acl set": _page(
        (*WRITE, exits.NOT_FOUND, exits.VERSION_CONFLICT, exits.REFUSED),
        ("zkside acl set /app world:anyone:r auth::cdrwa", "everybody reads, we do all"),
    ),
    "hold": _page(
        (*HOLD, exits.NOT_FOUND, exits.EXISTS),
        ("zkside hold -p /members/me here", "an ephemeral node, until Ctrl-C"),
        ("zkside hold /members/me --recreate", "again in a new session, after a loss"),
    ),
    "lock": _runs(
        ("zkside lock /locks/backup -- backup.sh", "one at a time over all hosts"),
        ("zkside lock /locks/backup --timeout 10m -- backup.sh", "wait no longer than that; then 15"),
        ("zkside lock /locks/backup -n -- backup.sh", "only if nobody else has it"),
        ("zkside lock /locks/table --shared -- report.sh", "with other readers, without writers"),
    ),
    "elect": _runs(
        ("zkside elect /leader --again -- server.sh", "runs where it leads, and again after a loss"),
        ("zkside elect /leader --id host1 --value 10.0.0.1:80 -- server.sh", "and tells others where"),
    ),
    "join": _runs(
        ("zkside join /services/web -- server.sh", "a member while it runs"),
        ("zkside join /services/web --id web-1 --data 10.0.0.1:80 -- server.sh", "with a name and an address"),
        more=(exits.EXISTS,),
    ),
    "who": _page(READ, ("zkside who /locks/backup", "who holds it, and who waits")),
    "observe": _page(
        FOLLOW,
        ("zkside observe /leader", "who leads, as it changes"),
        ("zkside -o json observe /leader -n 1", "who leads now"),
    ),
    "members": _page(
        (*FOLLOW, exits.NOT_FOUND),
        ("zkside members /services/web", "who is there"),
        ("zkside members /services/web --watch --min-kept 0.5", "as it changes, and not half of them at once"),
    ),
    "admin holds": _page(CALL, ("zkside admin holds", "what local processes own or wait for")),
    "admin watches": _page(CALL, ("zkside admin watches", "what the daemon watches, and for how many")),
    "admin streams": _page(
        CALL, ("zkside -o json admin streams | jq -s 'sort_by(-.pending)[:5]'", "the slowest readers")
    ),
    "admin drain": _page(CALL, ("zkside admin drain", "the same as `zkside drain`")),
    "protos": _page(LOCAL, ('protoc -I "$(zkside protos)" --go_out=. zkside/v1/lock.proto', "stubs"), environment=""),
    "completion": _page(LOCAL, ('eval "$(zkside completion bash)"', "in ~/.bashrc"), environment=""),
}


def page_of(context: click.Context | None) -> Page | None:
    """Of the command that runs in this context."""
    names: list[str] = []
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    return PAGES.get(" ".join(names))


def write_into(command: click.Command, name: str) -> None:
    """Put the page below the options of the command's help; into each of a group's. Idempotent."""
    if isinstance(command, click.Group):
        for nested in command.commands.values():
            write_into(nested, f"{name} {nested.name}")
    elif name in PAGES:
        command.epilog = _epilog(PAGES[name])


def statuses(page: Page) -> list[tuple[str, str]]:
    """Exit statuses with their meanings, in order."""
    rows = [(str(code), exits.MEANINGS[code].replace("`", "")) for code in sorted(set(page.statuses))]
    return [*rows, ("other", "that of the command that it ran")] if page.passes_on else rows


def _epilog(page: Page) -> str:
    parts = ["\b\nExit status:\n" + "\n".join(f"  {code:<6} {meaning}" for code, meaning in statuses(page))]
    if page.environment:
        parts.append(f"Environment: {page.environment.replace('`', '')}")
    width = max(len(line) for line, _ in page.examples)
    shown = "\n".join(
        f"  {line:<{width}}  # {told}" if width < 60 else f"  # {told}\n  {line}" for line, told in page.examples
    )
    parts.append(f"\b\nExamples:\n{shown}")
    return "\n\n".join(parts)
