"""Writes the generated parts of docs/*.md and the files that are generated as a whole, or with --check tells
whether they are up to date.

A part stands between two comments, which stay:

    <!-- generated: session-diagram -->
    …
    <!-- end of session-diagram -->
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).parent

GENERATORS: Mapping[str, str] = {
    "session-diagram": "zkside.core.session:diagram",
    "session-table": "zkside.core.session:table",
    "configuration-keys": "zkside.config_source:documented",
    "errors-table": "zkside.rpc.status:table",
    "proofs": "docs.proofs:table",
    "policy-needs": "zkside.rpc.needs:table",
    "log-events": "docs.vocabulary:events",
    "log-fields": "docs.vocabulary:fields",
    "cli-exit-codes": "zkside.cli.reference:exit_codes",
    "cli-commands": "zkside.cli.reference:commands",
}
"""What is generated, and by which function without arguments that returns Markdown."""

FILES: Mapping[Path, str] = {DOCS.parent / "zkside" / "client" / "sync.pyi": "docs.stubs:sync_face"}
"""What is generated as a whole."""

_PART = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


def generator(name: str) -> Callable[[], str]:
    """Raises: KeyError for a name that is not registered above."""
    return _function(GENERATORS[name])


def _function(name: str) -> Callable[[], str]:
    module, _, function = name.partition(":")
    found: Callable[[], str] = getattr(import_module(module), function)
    return found


def render(text: str) -> str:
    """The page with all its generated parts as they should be."""
    return _PART.sub(lambda part: f"{part[1]}{generator(part[2])().strip()}\n{part[3]}", text)


def outdated(docs: Path = DOCS) -> dict[Path, str]:
    """The pages whose generated parts are not as they should be, with what they should be."""
    pages = {page: page.read_text() for page in sorted(docs.rglob("*.md"))}
    return {page: new for page, text in pages.items() if (new := render(text)) != text}


def outdated_files() -> dict[Path, str]:
    """The files that are not as they should be, with what they should be."""
    return {file: new for file, name in FILES.items() if (new := _function(name)()) != file.read_text()}


def main(arguments: list[str]) -> int:
    stale = outdated() | outdated_files()
    for page, text in stale.items():
        if "--check" in arguments:
            print(f"{page} is out of date: run `make fmt`", file=sys.stderr)
        else:
            page.write_text(text)
            print(f"wrote {page}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.path.insert(0, str(DOCS.parent))
    sys.exit(main(sys.argv[1:]))
