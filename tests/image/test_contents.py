"""What is in the image and what is not; the files that it is built and run from."""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

import zkside as package
from tests.image.container import ALONE, ROOT, UID, done

pytestmark = pytest.mark.image

MOST_ADDED_BYTES = 60 << 20
"""What zkside may add to its base."""


def inside(image: str, *command: str) -> str:
    """What a command prints that is run in the image, as root, to see everything."""
    return done("run", *ALONE, "--user=0", f"--entrypoint={command[0]}", image, *command[1:])


@pytest.fixture(scope="module")
def files(image: str) -> list[str]:
    """Every file of the image."""
    return inside(image, "find", "/", "-xdev").splitlines()


@pytest.fixture(scope="module")
def config(image: str) -> Any:
    """What the image says of itself."""
    return json.loads(done("image", "inspect", image))[0]["Config"]


def packages(files: list[str]) -> str:
    """Where the packages are."""
    return next(file for file in files if re.fullmatch(r"/opt/zkside/lib/python3\.\d+/site-packages", file))


def test_the_tools_to_install_or_to_compile_are_not_in_it(files: list[str]) -> None:
    programs = {Path(file).name for file in files if Path(file).parent.name in ("bin", "sbin")}
    assert {"python3", "zkside", "sh"} <= programs
    assert not {"pip", "pip3", "cc", "gcc", "c++", "ld", "as", "make", "curl", "wget", "git"} & programs
    modules = {Path(file).name for file in files if "/python3" in file}
    assert {"asyncio", "zkside", "grpc"} <= modules
    assert not {"pip", "ensurepip", "setuptools", "wheel", "hatchling", "grpc_tools", "mypy_protobuf"} & modules
    assert not [file for file in files if file.endswith(".whl")]


def test_nothing_of_the_tree_but_the_package_is_in_it(files: list[str]) -> None:
    package = Path(packages(files), "zkside")
    own = {Path(file).name for file in files if Path(file).parent == package}
    assert {"daemon.py", "pb", "cli"} <= own
    tests = [file for file in files if "/tests" in file or "/conftest" in file]
    assert not tests
    assert not [file for file in files if file.startswith(("/src", "/wheels", "/root/.cache", "/opt/build"))]
    assert sorted(file for file in files if Path(file).parent == Path("/opt")) == ["/opt/zkside"]


def test_no_secret_of_the_build_is_in_it(config: Any, files: list[str]) -> None:
    """It was built with a pip.conf and a certificate as secrets."""
    assert not {"/etc/pip.conf", "/run/secrets"} & set(files)
    variables = {variable.split("=")[0].upper() for variable in config["Env"]}
    assert "ZKSIDE_STATE_DIR" in variables
    assert not [name for name in variables if name.startswith("PIP_") or "PROXY" in name or "PASSWORD" in name]


def test_every_module_is_compiled(image: str, files: list[str]) -> None:
    """A root that is read-only keeps no compiled code: what is not compiled here is compiled at each start."""
    standard = inside(image, "python3", "-c", "import asyncio; print(asyncio.__path__[0])")
    below = (packages(files), standard)
    asked = [file for file in files if file.endswith(".py") and file.startswith(below)]
    assert len(asked) > 300
    compiled = {
        re.sub(r"__pycache__/(.*)\.cpython-\d+\.pyc$", r"\1.py", file) for file in files if file.endswith(".pyc")
    }
    assert not set(asked) - compiled


def test_no_file_makes_another_user_of_who_runs_it(image: str) -> None:
    assert inside(image, "find", "/", "-xdev", "-type", "f", "-perm", "/6000") == ""


def test_the_image_says_how_it_is_run(image: str, config: Any) -> None:
    assert config["User"] == f"{UID}:{UID}"
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert (config["Entrypoint"], config["Cmd"]) == (["zkside"], ["serve"])
    check = json.loads(done("image", "inspect", "--format={{json .HealthCheck}}", image))
    assert check["Test"] == ["CMD", "zkside", "--timeout", "3s", "health"]
    assert inside(image, "zkside", "--version").split()[-1] == package.__version__
    assert config["Labels"]["org.opencontainers.image.version"] == package.__version__


def test_the_manifests_and_the_image_agree(image: str, config: Any) -> None:
    """User, directories, socket; and the commands that the manifests run are there."""
    own = dict(variable.split("=", 1) for variable in config["Env"])
    commands = {"sh"}
    for name in ("components/sidecar/container", "components/sidecar-classic/container", "daemonset/daemonset"):
        manifest = yaml.safe_load((ROOT / f"deploy/k8s/{name}.yaml").read_text())
        pod = manifest["spec"]["template"]["spec"]
        containers = [*pod.get("initContainers", []), *pod.get("containers", [])]
        of = next(each for each in containers if each["name"] == "zkside")
        theirs = {variable["name"]: variable["value"] for variable in of["env"]}
        for variable in ("ZKSIDE_LISTEN", "ZKSIDE_ADDRESS", "ZKSIDE_STATE_DIR"):
            assert own[variable] == theirs[variable], (name, variable)
        context = of["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == config["User"]
        commands |= {each["command"][0] for each in containers if "command" in each}
        commands |= {hook["exec"]["command"][0] for hook in of.get("lifecycle", {}).values()}
    assert {"chown", "timeout", "sleep"} <= commands
    for command in commands:
        assert inside(image, "sh", "-c", f"command -v {command}")


def test_it_adds_little_to_its_base(image: str) -> None:
    size_bytes = int(inside(image, "du", "--summarize", "--bytes", "/opt/zkside").split()[0])
    assert size_bytes < MOST_ADDED_BYTES


def test_hadolint_finds_nothing() -> None:
    hadolint = f"{sysconfig.get_path('scripts')}/hadolint"
    linted = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")
