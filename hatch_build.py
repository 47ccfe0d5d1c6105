"""Makes zkside/pb from proto/ at build time. `python hatch_build.py` makes it in place."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
OUT = ROOT / "zkside" / "pb"


def generate() -> None:
    """Compile every .proto of the package into zkside/pb, with type stubs."""
    import grpc_tools
    from grpc_tools import protoc

    sources = sorted((ROOT / "proto").rglob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = {name: shutil.which(name, path=path) for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")}
    plugins = [f"--plugin={name}={where}" for name, where in found.items()]
    with tempfile.TemporaryDirectory() as folder:
        staging = Path(folder)
        arguments = [
            "protoc",
            f"-I{ROOT / 'proto'}",
            f"-I{well_known}",
            *plugins,
            f"--python_out={staging}",
            f"--grpc_python_out={staging}",
            f"--mypy_out=quiet:{staging}",
            f"--mypy_grpc_out=quiet:{staging}",
            *map(str, sources),
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc failed")
        made = {"__init__.py": '"""Generated from proto/ by hatch_build.py; never edited."""\n'}
        # protoc names Python packages after the proto's folder, which would be zkside/v1: ours is zkside/pb.
        for source in sorted((staging / "zkside" / "v1").iterdir()):
            text = re.sub(r"\bzkside\.v1(?= import)", "zkside.pb", source.read_text())
            text = text.replace("import zkside.v1.", "import zkside.pb.")
            made[source.name] = text.replace("zkside.v1.common_pb2.", "zkside.pb.common_pb2.")
    OUT.mkdir(exist_ok=True)
    for old in OUT.iterdir():
        if old.name not in made and old.is_file():
            old.unlink()
    for name, text in made.items():
        (OUT / name).write_text(text)


class ProtoBuildHook(BuildHookInterface[Any]):
    """Runs before anything is built. An sdist has proto/ and is built into a wheel elsewhere; a wheel has the
    generated code, and the protos too, for whoever generates stubs for another language."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        generate()
        if version == "standard":
            build_data["force_include"]["proto/zkside"] = "zkside/proto/zkside"


if __name__ == "__main__":
    generate()
