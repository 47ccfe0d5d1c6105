"""compose.yaml, as Compose itself reads it; no Docker is needed for that."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.image.container import ALONE, ROOT, UID, Container, done, podman
from tests.ops.test_metrics import tool
from zkside.cli import exits
from zkside.config import AtShutdown
from zkside.config_source import read

pytestmark = pytest.mark.image

COMPOSE = (["docker", "compose"], ["docker-compose"])


@pytest.fixture(scope="module")
def services() -> Any:
    """Every service, with what Compose makes of it."""
    command = next(command for command in COMPOSE if _works(command))
    options = ["--file", "compose.yaml", "--profile", "shell", "--profile", "monitoring", "config"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["services"]


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def target(volume: Any) -> tuple[str, str, bool]:
    """Source, target, and whether it is read-only, of a volume in the short or the long form."""
    if isinstance(volume, str):
        source, at, *mode = volume.split(":")
        return source, at, mode == ["ro"]
    return volume["source"], volume["target"], volume.get("read_only", False)


def test_zkside_is_as_bounded_there_as_in_a_cluster(services: Any) -> None:
    zkside = services["zkside"]
    assert zkside["read_only"] is True
    assert zkside["cap_drop"] == ["ALL"]
    assert zkside["security_opt"] == ["no-new-privileges:true"]
    assert str(zkside["mem_limit"]) in ("96m", str(96 << 20))
    assert "ports" not in zkside, "who calls has the socket"
    assert {"user", "command", "entrypoint", "healthcheck"}.isdisjoint(zkside), "the image's own"


def test_zkside_accepts_its_configuration_and_keeps_its_session_over_a_restart(services: Any) -> None:
    zkside = services["zkside"]
    config = read(environment=zkside["environment"]).config
    assert config.zookeeper.hosts == "zookeeper:2181"
    assert config.shutdown.session is AtShutdown.KEEP_SESSION
    assert zkside["restart"] == "unless-stopped"
    assert float(str(zkside["stop_grace_period"]).removesuffix("s")) > config.shutdown.grace_s
    assert {target(volume) for volume in zkside["volumes"]} == {
        ("zkside-socket", "/run/zkside", False),
        ("zkside-state", "/var/lib/zkside", False),
    }


@pytest.mark.parametrize(("group", "status"), [(UID, exits.OK), (1000, exits.UNAVAILABLE)])
def test_in_volumes_that_the_engine_makes_only_a_member_of_the_group_can_call(
    group: int, status: int, image: str, place: Path, hosts: str, services: Any
) -> None:
    """The engine's volumes are for the user who has their place in the image; both services run as Compose says."""
    names = (f"{place.name}-socket", f"{place.name}-state")
    settings = {key.removeprefix("ZKSIDE_"): value for key, value in services["zkside"]["environment"].items()}
    here = {"ZOOKEEPER_HOSTS": hosts, "HTTP_LISTEN": "127.0.0.1:0"}
    shell = services["shell"]
    try:
        with Container(image, place, hosts, volumes=names, keys=settings | here) as container:
            container.wait_connected()
            called = podman(
                "run", *ALONE, "--read-only", "--cap-drop=ALL", f"--user={shell['user'].split(':')[0]}:{group}",
                *(f"--env={name}={value}" for name, value in shell["environment"].items()),
                f"--volume={names[0]}:/run/zkside:ro", "--entrypoint=", image, *shell["command"],
            )  # fmt: skip
            assert called.returncode == status, called.stderr
            assert ("CONNECTED" in called.stdout) == (status == exits.OK)
    finally:
        done("volume", "rm", "--force", *names)


def test_a_service_gets_the_socket_by_its_volume_its_address_and_its_group(services: Any) -> None:
    shell = services["shell"]
    assert [target(volume) for volume in shell["volumes"]] == [("zkside-socket", "/run/zkside", True)]
    assert shell["environment"] == {"ZKSIDE_ADDRESS": "unix:/run/zkside/zkside.sock"}
    assert shell["user"].endswith(f":{UID}")


def test_prometheus_accepts_its_configuration_and_scrapes_where_zkside_listens(services: Any) -> None:
    source, _, _ = target(services["prometheus"]["volumes"][0])
    checked = subprocess.run([tool("promtool"), "check", "config", source], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with open(source) as file:
        targets = yaml.safe_load(file)["scrape_configs"][0]["static_configs"][0]["targets"]
    listen = read(environment=services["zkside"]["environment"]).config.http.listen
    assert listen is not None
    assert targets == [f"zkside:{listen.port}"]
