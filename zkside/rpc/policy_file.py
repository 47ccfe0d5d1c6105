"""The policy's file."""

from __future__ import annotations

import tomllib
from pathlib import Path

from zkside.core.policy import Policy
from zkside.core.policy_document import PolicyError, parse
from zkside.errors import StartError

MAX_FILE_BYTES = 16 << 20


def read_policy(path: Path) -> Policy:
    """Raises: StartError with all that is wrong with the file, a line each."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise StartError(f"the policy {path} has more than {MAX_FILE_BYTES} bytes")
        return parse(tomllib.loads(content.decode()))
    except OSError as error:
        raise StartError(f"the policy {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StartError(f"the policy {path} is not TOML: {error}") from None
    except PolicyError as error:
        lines = "\n".join(f"  {line}" for line in str(error).splitlines())
        raise StartError(f"the policy {path} cannot be used:\n{lines}") from None
