"""A private, real ZooKeeper: finds an installation and runs servers of it on loopback.

For `zkside dev`, the tests and the benchmarks. Everything here blocks (a start takes about a second): from
asyncio use `asyncio.to_thread(server.start)`.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from xml.sax.saxutils import escape

from zkside.errors import StartError

DEBIAN_JARS = Path("/usr/share/java")

HOW_TO_GET_ONE = (
    "Get one with `apt-get install zookeeper` (Debian, Ubuntu), or set ZOOKEEPER_HOME to an unpacked release,"
    " or install `mvn` and name a version, which is then fetched from Maven Central."
)

_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>zkside</groupId><artifactId>zookeeper</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.zookeeper</groupId><artifactId>zookeeper</artifactId><version>{version}</version>
      <exclusions>
        <exclusion><groupId>ch.qos.logback</groupId><artifactId>*</artifactId></exclusion>
      </exclusions>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-api</artifactId><version>2.0.13</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>2.0.13</version>
    </dependency>
    <!-- "provided" in ZooKeeper's own pom, yet a server does not start without them -->
    <dependency>
      <groupId>io.dropwizard.metrics</groupId><artifactId>metrics-core</artifactId><version>4.1.12.1</version>
    </dependency>
    <dependency>
      <groupId>org.xerial.snappy</groupId><artifactId>snappy-java</artifactId><version>1.1.10.5</version>
    </dependency>
  </dependencies>
</project>
"""

# For ZOOKEEPER_HOME, whose releases log through logback; the others use slf4j-simple (see `launch`).
_LOGBACK = """\
<configuration>
  <appender name="STDERR" class="ch.qos.logback.core.ConsoleAppender">
    <target>System.err</target>
    <encoder><pattern>%d{{ISO8601}} %-5p [%t:%C{{1}}@%L] - %m%n</pattern></encoder>
  </appender>
  <root level="{level}"><appender-ref ref="STDERR"/></root>
</configuration>
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """A ZooKeeper that can be run."""

    version: str
    class_path: tuple[Path, ...]
    java: str


def find(version: str | None = None) -> Installation:
    """An installed ZooKeeper, or one fetched with Maven if a version is named that is not installed.

    `version` is whole ("3.9.4") or a prefix ("3.9": the newest of them). Without one: ZOOKEEPER_HOME, then
    Debian's package.
    Raises: StartError, which says how to get one.
    """
    java = _find_java()
    for jars in _installed():
        found = _version_of(jars)
        if found and (version is None or _matches(found, version)):
            return Installation(found, jars, java)
    if version is None:
        raise StartError(f"no ZooKeeper is installed. {HOW_TO_GET_ONE}")
    jars = _fetched(version)
    return Installation(_version_of(jars), jars, java)


def _find_java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else None
    java = java or shutil.which("java")
    if java is None:
        raise StartError("ZooKeeper needs Java, and there is none: `apt-get install default-jre-headless`.")
    return java


def _installed() -> list[tuple[Path, ...]]:
    """The class paths of what is on this machine."""
    found: list[tuple[Path, ...]] = []
    home = os.environ.get("ZOOKEEPER_HOME")
    if home:
        jars = tuple(sorted(Path(home, "lib").glob("*.jar")))
        if not _version_of(jars):
            raise StartError(f"ZOOKEEPER_HOME={home} holds no lib/zookeeper-<version>.jar. {HOW_TO_GET_ONE}")
        found.append(jars)
    # The manifest of Debian's jar names all others, but for something behind slf4j.
    found += [(jar, DEBIAN_JARS / "slf4j-simple.jar") for jar in DEBIAN_JARS.glob("zookeeper-[0-9]*.jar")]
    return found


def _version_of(jars: Sequence[Path]) -> str:
    for jar in jars:
        match = re.fullmatch(r"zookeeper-(\d[\w.-]*)\.jar", jar.name)
        if match:
            return match[1]
    return ""


def _matches(found: str, wanted: str) -> bool:
    return found == wanted or found.startswith(wanted + ".")


def _cache_dir() -> Path:
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").exists():
        return checkout / ".zkside"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zkside"


def _fetched(version: str) -> tuple[Path, ...]:
    """The jars of a release from Maven Central, fetched once."""
    if not re.fullmatch(r"\d+(\.\d+){1,2}(-[\w.]+)?", version):
        raise StartError(f"{version!r} is not a ZooKeeper version: say for example 3.9 or 3.9.4.")
    home = _cache_dir() / f"zookeeper-{version}"
    if not home.exists():
        maven = shutil.which("mvn")
        if maven is None:
            raise StartError(f"ZooKeeper {version} is not installed. {HOW_TO_GET_ONE}")
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as work:
            _fetch(maven, version, Path(work))
            # Somebody else's download of the same may have come first: theirs is as good.
            with contextlib.suppress(OSError):
                os.rename(Path(work, "lib"), home)
    return tuple(sorted(home.glob("*.jar")))


def _fetch(maven: str, version: str, work: Path) -> None:
    wanted = version
    if version.count(".") == 1:
        major, minor = version.split(".")
        wanted = f"[{version},{major}.{int(minor) + 1})"
    pom = work / "pom.xml"
    command = [
        maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies",
        "-DincludeScope=runtime", f"-DoutputDirectory={work}/lib",
    ]  # fmt: skip
    while True:
        pom.write_text(_POM.format(version=escape(wanted)))
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode == 0 and _version_of(sorted((work / "lib").glob("*.jar"))):
            return
        # A release that is listed but not (yet) there as a whole: take the one before it.
        partial = re.search(r"zookeeper:zookeeper:\w+:([\w.-]+): Failed to read artifact descriptor", done.stdout)
        if wanted == version or partial is None or f",{partial[1]})" in wanted:
            raise StartError(f"Maven could not fetch ZooKeeper {version}:\n{(done.stdout + done.stderr)[-2000:]}")
        wanted = f"[{version},{partial[1]})"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now, outside of the range from which clients' ports are taken."""
    for _ in range(1000):
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise StartError("no free TCP port on 127.0.0.1")


class ZooKeeperServer:
    """One ZooKeeper server process on 127.0.0.1 (or elsewhere, see below), with a directory of its own.

    It never outlives this process: a guard kills it when this process ends in whatever way. Its directory
    goes with it unless that was given.
    """

    def __init__(
        self,
        installation: Installation | None = None,
        *,
        port: int = 0,
        directory: Path | None = None,
        tick_ms: int = 2000,
        heap_mb: int = 256,
        force_sync: bool = False,
        log_level: str = "WARN",
        properties: Mapping[str, object] | None = None,
        jvm_flags: Sequence[str] = (),
        server_id: int = 0,
        address: str = "127.0.0.1",
        launcher: Sequence[str] = (),
    ) -> None:
        """`properties` are lines of zoo.cfg (they win over the defaults); `server_id` is the myid of a
        member of an ensemble. `launcher` is a command in front of the server's own that becomes it (exec), so
        as to run it in a network namespace, where it listens on `address`.

        Raises: StartError if there is no ZooKeeper to run.
        """
        self.installation = installation or find()
        self.port = port or free_port()
        self.address = address
        self.tick_ms = tick_ms
        self._launcher = tuple(launcher)
        self._given_directory = directory
        self._directory: Path | None = directory
        self._heap_mb = heap_mb
        self._log_level = log_level
        self._jvm_flags = tuple(jvm_flags)
        self._server_id = server_id
        self._properties: dict[str, object] = {
            "tickTime": tick_ms,
            "initLimit": 10,
            "syncLimit": 5,
            "clientPort": self.port,
            "clientPortAddress": address,
            "maxClientCnxns": 0,
            "minSessionTimeout": min(tick_ms * 2, 1000),
            "maxSessionTimeout": 60_000,
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "*",
            "extendedTypesEnabled": "true",
            "forceSync": "yes" if force_sync else "no",
        } | dict(properties or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def hosts(self) -> str:
        """The connection string."""
        return f"{self.address}:{self.port}"

    @property
    def version(self) -> str:
        return self.installation.version

    @property
    def pid(self) -> int:
        """0 while it is not running."""
        return self._process.pid if self._process is not None else 0

    @property
    def directory(self) -> Path:
        """Where its data, configuration and log are; made when first needed."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="zkside-zookeeper-"))
        return self._directory

    @property
    def log(self) -> str:
        """What it wrote so far."""
        path = self.directory / "zookeeper.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, *, within_s: float = 30.0) -> Self:
        """Start it and wait until it serves.

        Raises: StartError with the end of its log if it does not; it is then stopped.
        """
        self.launch()
        try:
            self.wait_serving(within_s=within_s)
        except BaseException:
            self.kill()
            raise
        return self

    def launch(self) -> None:
        """Start the process without waiting (members of an ensemble serve only together)."""
        if self._process is not None:
            raise StartError(f"the ZooKeeper server at {self.hosts} is running already")
        directory = self.directory
        data = directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        config = directory / "zoo.cfg"
        # The server writes its own list of members beside the file; a leftover would win over our lines.
        for leftover in directory.glob("zoo.cfg*"):
            leftover.unlink()
        lines = [f"{key}={value}" for key, value in self._properties.items()]
        config.write_text("\n".join([f"dataDir={data}", *lines, ""]))
        (directory / "logback.xml").write_text(_LOGBACK.format(level=self._log_level))
        if self._server_id:
            (data / "myid").write_text(f"{self._server_id}\n")
        class_path = ":".join(map(str, (directory, *self.installation.class_path)))
        command = [
            *self._launcher,
            self.installation.java,
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            "-Djava.net.preferIPv4Stack=true",
            f"-Dorg.slf4j.simpleLogger.defaultLogLevel={self._log_level.lower()}",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            *self._jvm_flags,
            "-cp",
            class_path,
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            str(config),
        ]
        # A session of its own: Ctrl-C is for us, who then stop it in order.
        with open(directory / "zookeeper.log", "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=directory,
            )
        on_our_death = (str(self._process.pid), "" if self._given_directory else str(directory))
        # Its standard input ends when this process does. PR_SET_PDEATHSIG would fire at the end of the
        # *thread* that started the server, and needs code between fork and exec.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read _; kill -9 "$1"; [ -z "$2" ] || rm -rf "$2"', "sh", *on_our_death],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_serving(self, *, within_s: float = 30.0) -> None:
        """Return when it answers clients.

        Raises: StartError with the end of its log.
        """
        deadline = time.monotonic() + within_s
        while not self.is_serving():
            if self._process is None or self._process.poll() is not None:
                raise StartError(f"ZooKeeper {self.version} ended at its start:\n{self.log[-2000:]}")
            if time.monotonic() > deadline:
                raise StartError(f"ZooKeeper at {self.hosts} serves nobody yet:\n{self.log[-2000:]}")
            time.sleep(0.03)

    def is_serving(self) -> bool:
        """Whether it answers clients at the moment."""
        try:
            return self.four_letter("srvr", timeout_s=1.0).startswith("Zookeeper version")
        except OSError:
            return False

    def stop(self, *, within_s: float = 10.0) -> None:
        """End it in order (SIGTERM, in the end SIGKILL) and remove its directory unless that was given."""
        if self._process is not None:
            self.resume()
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(within_s)
        self.kill()
        if self._given_directory is None and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def kill(self) -> None:
        """End it as a crash would (SIGKILL); its data stays for a `start`."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.wait()
            if guard.stdin is not None:
                guard.stdin.close()

    def restart(self, *, within_s: float = 30.0) -> None:
        """Kill it and start it again on the same port with its data."""
        self.kill()
        self.start(within_s=within_s)

    def pause(self) -> None:
        """Let it hang (SIGSTOP): its connections stay up and nothing answers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def four_letter(self, word: str, *, timeout_s: float = 5.0) -> str:
        """The answer to one of ZooKeeper's four-letter words.

        Raises: OSError if it does not answer.
        """
        with self._connect(timeout_s) as connection:
            connection.sendall(word.encode())
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts).decode()

    def _connect(self, timeout_s: float) -> socket.socket:
        return socket.create_connection((self.address, self.port), timeout=timeout_s)

    def mntr(self) -> dict[str, str]:
        """The server's own measurements (`mntr`), without their "zk_"."""
        lines = (line.partition("\t") for line in self.four_letter("mntr").splitlines())
        return {key.removeprefix("zk_"): value for key, tab, value in lines if tab}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
