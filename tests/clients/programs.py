"""The programs in examples/, made with each language's own tools below .zkside/clients/."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MADE = ROOT / ".zkside/clients"
PROTOS = ROOT / "proto"


@dataclass(frozen=True, slots=True)
class Language:
    """How a program is made, and then run in its directory: before its arguments, the address and a name."""

    make: Sequence[Sequence[str]]
    run: Sequence[str]
    folder: str = ""
    """Below examples/, if it is not called as the language."""


GO_PLUGINS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.6",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1",
)
LANGUAGES = {
    "go": Language(
        [
            *(["go", "install", plugin] for plugin in GO_PLUGINS),
            ["buf", "generate", str(PROTOS)],
            ["go", "mod", "tidy"],
            ["go", "build", "-o", "held", "."],
        ],
        ["./held"],
    ),
    "java": Language(
        [["mvn", "-q", "-B", "package"]], ["java", "-cp", "target/classes:target/dependency/*", "example.Held"]
    ),
    "node": Language([["npm", "install", "--no-package-lock", "--silent"]], ["node", "main.js"]),
    "python": Language([], [sys.executable, "main.py"], "python/held"),
    "rust": Language([["cargo", "build", "--quiet"]], ["target/debug/held"]),
}


def environment(directory: Path) -> dict[str, str]:
    paths = (str(directory / "bin"), sysconfig.get_path("scripts"), os.environ["PATH"])
    return os.environ | {"PATH": os.pathsep.join(paths), "GOBIN": str(directory / "bin"), "PROTOS": str(PROTOS)}


@cache
def made(name: str) -> Path:
    """The directory in which it can be run. What was made before is used again, as each language's tools do."""
    directory = MADE / name
    shutil.copytree(ROOT / "examples" / (LANGUAGES[name].folder or name), directory, dirs_exist_ok=True)
    for command in LANGUAGES[name].make:
        done = subprocess.run(
            command, cwd=directory, env=environment(directory), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{name}: {' '.join(command)}: {done.stdout}{done.stderr}"
    return directory
