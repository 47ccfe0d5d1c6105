"""Makes zkside/pb from proto/ at build time. `python hatch_build.py` makes it in place."""

from __future__ import annotations

import os
import re
import shutil
import sys
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
    plugins = [f"--plugin={name}={shutil.which(name, path=path)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    shutil.rmtree(OUT, ignore_errors=True)
    staging = OUT / "_staging"
    staging.mkdir(parents=True, exist_ok=True)
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
    # protoc names Python packages after the proto's folder, which would be zkside/v1: ours is zkside/pb.
    for made in sorted((staging / "zkside" / "v1").iterdir()):
        text = re.sub(r"\bzkside\.v1(?= import)", "zkside.pb", made.read_text())
        text = text.replace("import zkside.v1.", "import zkside.pb.").replace("zkside.v1.common_pb2.", "zkside.pb.common_pb2.")
        (OUT / made.name).write_text(text)
        made.unlink()
    (staging / "zkside" / "v1").rmdir()
    (staging / "zkside").rmdir()
    staging.rmdir()
    (OUT / "__init__.py").write_text('"""Generated from proto/ by hatch_build.py; never edited."""\n')


class ProtoBuildHook(BuildHookInterface[Any]):
    """Runs before a wheel, an sdist or an editable install is made."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        generate()
        build_data["artifacts"].append("/zkside/pb/*")


if __name__ == "__main__":
    generate()
