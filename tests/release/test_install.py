"""What is built runs where nothing was: an empty environment, outside the checkout, with what the package index has."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.release.conftest import Built, Environment, run
from tools import version
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.client.sync import Client

pytestmark = [pytest.mark.release, pytest.mark.timeout(300)]


def pythons() -> list[str]:
    """The supported versions that are on this machine, that of the tests first."""
    found = [sys.executable]
    for minor in (11, 12, 13):
        name = f"python3.{minor}"
        if sys.version_info[1] != minor and shutil.which(name):
            answers = subprocess.run([name, "-c", "import ensurepip"], capture_output=True, check=False)
            found += [name] if answers.returncode == 0 else []
    return found


def try_out(environment: Environment) -> None:
    """`zkside dev --memory`, and something done with it."""
    address = f"unix:{environment.directory}/zkside.sock"
    with environment.running("dev", "--memory", until="Ctrl-C", ZKSIDE_ADDRESS=address):
        assert environment.zkside("-a", address, "create", "/greeting", "hello").strip() == "/greeting"
        assert environment.zkside("-a", address, "get", "/greeting").strip() == "hello"
    assert environment.pip("check").strip() in ("", "No broken requirements found.")


@pytest.fixture(scope="module", params=pythons(), ids=lambda python: Path(python).name)
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Environment:
    """From the wheel, with whatever the index has within the ranges."""
    environment = Environment(tmp_path_factory.mktemp("wheel"), request.param)
    environment.pip("install", built.wheel)
    return environment


def test_a_wheel_runs_after_one_command_that_installs_it(installed: Environment) -> None:
    try_out(installed)


def test_an_installed_daemon_serves_in_front_of_a_real_zookeeper(
    built: Built, installed: Environment, zookeeper: ZooKeeperServer, chroot: str, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path}/zkside.sock"
    settings = ("--zookeeper-hosts", zookeeper.hosts + chroot, "--listen", address, "--http-listen", "127.0.0.1:0")
    with installed.running("serve", *settings, "--state-dir", str(tmp_path / "state"), until="serving at"):
        with Client(address) as client:
            client.create("/a", b"1", wait_for_ready=True)
        assert installed.zkside("-a", address, "get", "/a").strip() == "1"
        status = json.loads(installed.zkside("-a", address, "-o", "json", "status"))
    assert status["version"] == str(version.read(built.sources))


def test_the_protos_of_an_installed_package_are_enough_to_generate_stubs(
    installed: Environment, tmp_path: Path
) -> None:
    include = installed.zkside("protos").strip()
    assert Path(include).is_relative_to(installed.directory)
    files = sorted(str(file.relative_to(include)) for file in Path(include).rglob("*.proto"))
    assert "zkside/v1/node.proto" in files
    run(sys.executable, "-m", "grpc_tools.protoc", f"-I{include}", f"--python_out={tmp_path}", *files, cwd=tmp_path)
    assert (tmp_path / "zkside/v1/node_pb2.py").exists()


def test_a_type_checker_knows_the_installed_client(installed: Environment, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("from zkside.client import Client\n\nreveal_type(Client().address)\nClient().nonsense()\n")
    told = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed.bin / "python", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert 'Revealed type is "str"' in told
    assert 'no attribute "nonsense"' in told
    assert "Found 1 error" in told


def test_an_sdist_runs_after_one_command_that_builds_and_installs_it(built: Built, tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    environment.pip("install", built.sdist)
    try_out(environment)


def test_a_wheel_runs_with_the_pinned_requirements_and_no_other_package(built: Built, tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    pins = built.sources / "requirements/run.txt"
    environment.pip("install", "--no-deps", "--require-hashes", "-r", pins)
    environment.pip("install", "--no-deps", "--no-index", built.wheel)
    try_out(environment)
