"""Real certificates, made with the command openssl."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from zkside.client import TlsOptions
from zkside.rpc.listeners import TlsFiles

SERVER_NAMES = ("DNS:localhost", "IP:127.0.0.1")


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key."""

    cert: Path
    key: Path


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Authority:
    """Signs what it is asked to."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.cert = directory / f"{name}.crt"
        self._key = directory / f"{name}.key"
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"),
            *("-keyout", self._key, "-out", self.cert, "-subj", f"/CN={name}"),
        )

    def issue(self, name: str, *names: str, days: int = 2, cn: str = "") -> Issued:
        """A certificate with these subject alternative names (as "DNS:…"), and files called `name`."""
        made = Issued(self._directory / f"{name}.crt", self._directory / f"{name}.key")
        request, extensions = self._directory / f"{name}.csr", self._directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(names)}\n" if names else "")
        openssl(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", made.key, "-out", request, "-subj", f"/CN={cn or name}"),
        )
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", str(days), "-extfile", extensions, "-out", made.cert),
        )
        return made

    def server(self, name: str = "server") -> Issued:
        """For a daemon on this host."""
        return self.issue(name, *SERVER_NAMES)

    def files(self, issued: Issued, *, demanding: bool = False) -> TlsFiles:
        """Of a daemon with this certificate; `demanding` certificates of the same authority of its clients."""
        return TlsFiles(issued.cert, issued.key, self.cert if demanding else None)

    def options(self, issued: Issued | None = None) -> TlsOptions:
        """Of a client that trusts this authority, and shows this certificate."""
        return TlsOptions(self.cert) if issued is None else TlsOptions(self.cert, issued.cert, issued.key)


class Volume:
    """Files as Kubernetes mounts those of a Secret: links by way of `..data`, which is exchanged at one stroke."""

    def __init__(self, directory: Path, **files: bytes) -> None:
        self.directory = directory
        directory.mkdir()
        self._generations = 0
        self.exchange(**files)

    def exchange(self, **files: bytes) -> None:
        """Names are written with `_` for the dot."""
        self._generations += 1
        generation = self.directory / f"..generation_{self._generations}"
        generation.mkdir()
        for name, content in files.items():
            (generation / name.replace("_", ".")).write_bytes(content)
        link = self.directory / "..data_tmp"
        link.symlink_to(generation.name)
        os.replace(link, self.directory / "..data")
        for name in files:
            visible = self.directory / name.replace("_", ".")
            if not visible.is_symlink():
                visible.symlink_to(f"..data/{visible.name}")

    def path(self, name: str) -> Path:
        return self.directory / name
