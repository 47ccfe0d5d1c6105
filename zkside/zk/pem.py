"""PEM files: reading them, when what is in them expires, and what is wrong with them."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zkside.errors import StartError
from zkside.zk.der import validity

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_END = b"-----END CERTIFICATE-----"


def content(path: Path) -> bytes:
    """Raises: StartError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror}") from error


def ssl_reason(error: Exception) -> str:
    """An error of `ssl` in words."""
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    if reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    return reason.replace("_", " ").lower() or str(error) or type(error).__name__


def expiries(path: Path, pem: bytes) -> list[float]:
    """The end of validity of each certificate in a file. Raises: StartError."""
    found: list[float] = []
    for part in pem.split(_CERTIFICATE)[1:]:
        body, end, _ = part.partition(_END)
        try:
            if not end:
                raise ValueError("a certificate without an end")
            der = ssl.PEM_cert_to_DER_cert((_CERTIFICATE + body + _END).decode())
            found.append(validity(der)[1])
        except ValueError as error:
            raise StartError(f"{path} cannot be used: {error}") from error
    if not found:
        raise StartError(f"{path} has no certificate in it")
    return found


@contextmanager
def in_memory(content: bytes) -> Iterator[str]:
    """A file name for these bytes: `ssl` reads keys from files alone, and all must come from one reading."""
    descriptor = os.memfd_create("zkside")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
