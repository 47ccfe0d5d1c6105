"""The configuration of a daemon that has all that there is for security: with it everything is measured."""

from __future__ import annotations

from pathlib import Path

from tests.security.authority import Authority

POLICY = """
[identities.tests]
callers = ["listener:tests"]
[[identities.tests.rules]]
path = "/"
verbs = ["read", "write", "hold", "admin"]
"""


def secured(directory: Path, *, days: int = 30) -> dict[str, str]:
    """Keys for DaemonProcess, whose clients come by its Unix socket as the identity `tests`; below the directory are
    a certificate that is good for so many days (`server.crt`), `tokens`, `policy.toml` and `audit.log`."""
    authority = Authority(directory)
    issued = authority.issue("server", "DNS:localhost", "IP:127.0.0.1", days=days)
    tokens, policy = directory / "tokens", directory / "policy.toml"
    tokens.write_text("somebody 0123456789-abcdefghij\n")
    policy.write_text(POLICY)
    return {
        "LISTEN": f"unix:{directory}/zkside.sock?identity=tests,127.0.0.1:0",
        "TLS_CERT": str(issued.cert),
        "TLS_KEY": str(issued.key),
        "TLS_CLIENT_CA": str(authority.cert),
        "TOKENS_FILES": str(tokens),
        "POLICY_FILE": str(policy),
        "AUDIT_FILE": str(directory / "audit.log"),
    }
