"""dev."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from zkside.cli.daemon_options import daemon_options_but, parameter_of, read_configuration
from zkside.cli.invocation import Invocation, pass_invocation
from zkside.errors import StartError

if TYPE_CHECKING:
    from zkside.config_source import Reading
    from zkside.daemon import Daemon

METRICS_PORT = 9464
HOSTS = "zookeeper.hosts"


class Ensemble(NamedTuple):
    """What the daemon is to talk to."""

    hosts: str
    """'' for the memory backend."""
    told: str


@click.command()
@click.option("--memory", is_flag=True, help="No ZooKeeper: keep everything in this process's memory.")
@click.option("--zookeeper", metavar="VERSION", help="This release, fetched with Maven if it is not installed.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Keep ZooKeeper's data here.")
@daemon_options_but((HOSTS,))
@pass_invocation
def dev(
    invocation: Invocation,
    memory: bool,
    zookeeper: str | None,
    data: Path | None,
    config_file: Path | None,
    **options: Any,
) -> None:
    """Run a private ZooKeeper on a free loopback port and a daemon on it, until Ctrl-C.

    The daemon is configured as `serve`'s, by flags, the environment, and a file if --config or $ZKSIDE_CONFIG names
    one; apart from the ZooKeeper, which is always its own. Where nothing else is said it listens at --address (or
    ZKSIDE_ADDRESS, or its usual socket), has its metrics at 127.0.0.1:9464, or a free port if that is taken, and
    logs warnings. Where no ZooKeeper can be had it runs on memory, and says so. For development: nothing here is
    meant to last.
    """
    if options[parameter_of(HOSTS)] is not None:
        raise click.UsageError("dev runs a ZooKeeper of its own; a daemon for another one is `zkside serve`")
    if memory and (zookeeper or data):
        raise click.UsageError("--memory runs without ZooKeeper: leave --zookeeper and --data out")

    def body() -> int:
        from zkside.daemon import run
        from zkside.daemon_parts import Backend

        # The file of a real daemon is taken by name alone.
        file = config_file or Path(os.environ.get("ZKSIDE_CONFIG") or os.devnull)
        given = read_configuration(file, options)
        with _address(invocation.address, given) as address, _ensemble(memory, zookeeper, data) as ensemble:
            chosen = {"listen": address, "log.level": "warning"}
            if "http.listen" not in given.origins:
                chosen["http.listen"] = f"127.0.0.1:{_metrics_port()}"
            flags: dict[str, str | None] = {
                parameter_of(name): value for name, value in chosen.items() if name not in given.origins
            }
            # A real daemon's ensemble must not lead this one astray.
            flags[parameter_of(HOSTS)] = ensemble.hosts or None
            config = read_configuration(file, options | flags).config
            backend = Backend.KAZOO if ensemble.hosts else Backend.MEMORY
            return run(config, backend=backend, announce=lambda daemon: _announce(daemon, ensemble, given))

    invocation.end(body)


@contextmanager
def _ensemble(memory: bool, version: str | None, data: Path | None) -> Iterator[Ensemble]:
    """A private ZooKeeper, started and at the end stopped; or memory, if that is asked for or all there is."""
    from zkside.cli.zookeeper import ZooKeeperServer, find

    if memory:
        yield Ensemble("", "none: a development copy in this process's memory, gone when it ends")
        return
    try:
        installation = find(version)
    except StartError as error:
        if version is not None:
            raise
        print(f"zkside: {error}\nzkside: going on with memory instead of ZooKeeper.\n", file=sys.stderr)
        yield Ensemble("", "none could be had: a development copy in this process's memory, gone when it ends")
        return
    if data is not None:
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"--data {data}: {error.strerror}") from error
    print(f"Starting ZooKeeper {installation.version} …", flush=True)
    with ZooKeeperServer(installation, directory=data) as server:
        kept = f"kept in {data}" if data else "gone when this ends"
        yield Ensemble(server.hosts, f"{server.version}, private, at {server.hosts}, its data {kept}")


@contextmanager
def _address(told: str | None, given: Reading) -> Iterator[str]:
    """Where to listen: as configured or told, at the usual socket, or in a new folder if that one may not be used."""
    from zkside.client.link import default_address

    if told or "listen" in given.origins:
        yield told or ""  # what is configured wins
        return
    usual = default_address()
    folder = Path(usual.removeprefix("unix:")).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if writable:
        yield usual
        return
    with tempfile.TemporaryDirectory(prefix="zkside-dev-") as own:
        yield f"unix:{own}/zkside.sock"


def _metrics_port() -> int:
    """The usual port, or a free one if that is taken."""
    for port in (METRICS_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StartError("there is no free port on 127.0.0.1 for metrics")


def _announce(daemon: Daemon, ensemble: Ensemble, given: Reading) -> None:
    from zkside.client.link import default_address

    address = daemon.addresses[0]
    command = _command()
    lines = ["", "zkside is ready.", "", f"  ZooKeeper  {ensemble.told}", f"  clients    {', '.join(daemon.addresses)}"]
    if daemon.http_address:
        lines.append(f"  metrics    http://{daemon.http_address}/metrics, status http://{daemon.http_address}/statusz")
    # Who wonders why it is otherwise than usual looks here.
    lines += [f"  {name}: {where}" for name, where in given.origins.items() if name != HOSTS]
    if HOSTS in given.origins:
        lines.append(f"  {HOSTS} ({given.origins[HOSTS]}) is not used: this ZooKeeper is dev's own")
    lines += ["", "In another terminal:", ""]
    if address != default_address() or os.environ.get("ZKSIDE_ADDRESS"):
        lines.append(f"  export ZKSIDE_ADDRESS={shlex.quote(address)}")
    lines += [
        f"  {command} create /greeting hello",
        f"  {command} get /greeting",
        f"  {command} watch -R /            # leave it running, and in a third terminal:",
        f'  {command} set /greeting "hello again"',
        f"  {command} doctor",
        "",
        "Ctrl-C ends it all.",
    ]
    print("\n".join(lines), flush=True)


def _command() -> str:
    """How this program is called from the shell that started it."""
    found = shutil.which("zkside")
    program = Path(sys.argv[0])
    if found is not None and program.exists() and Path(found).samefile(program):
        return "zkside"
    if program.name == "zkside":
        return shlex.quote(str(program.absolute()))
    return f"{shlex.quote(sys.executable)} -m zkside"
