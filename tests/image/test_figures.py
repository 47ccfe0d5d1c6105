"""How much memory, time and disk the image takes; what is measured is printed, for docs/image.md."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import pytest

from tests.image.container import ALONE, Container, done, volumes

pytestmark = pytest.mark.image

ROUNDS = 3
MOST_IDLE_BYTES = 64 << 20
MOST_START_S = 1.5


def megabytes(figures: Iterable[int]) -> str:
    return ", ".join(f"{each / 1e6:.1f}" for each in figures)


def seconds(figures: Iterable[float]) -> str:
    return ", ".join(f"{each:.2f}" for each in figures)


def test_it_is_small_and_soon_ready(image: str, hosts: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In containers of their own, one after the other, beside a ZooKeeper that is ready."""
    resident, counted, with_check, of_process, of_container = [], [], [], [], []
    for _ in range(ROUNDS):
        with ExitStack() as stack:
            container = stack.enter_context(Container(image, stack.enter_context(volumes()), hosts))
            ready = container.wait_connected()
            of_process.append((ready - container.began).total_seconds())
            of_container.append((ready - container.asked).total_seconds())
            counted.append(container.memory().used_bytes)
            assert container.is_healthy()
            with_check.append(container.memory().peak_bytes)
            resident.append(int(container.status()["VmHWM"].split()[0]) * 1024)
    size = int(done("image", "inspect", "--format={{.Size}}", image))
    own = int(done("run", *ALONE, "--entrypoint=du", image, "-sb", "/opt/zkside").split()[0])
    with capsys.disabled():
        print(f"\n  idle, resident, at most     {megabytes(resident)} MB")
        print(f"  idle, in its control group  {megabytes(counted)} MB")
        print(f"  at most, while checked      {megabytes(with_check)} MB")
        print(f"  process started to ready    {seconds(of_process)} s")
        print(f"  container asked for to ready {seconds(of_container)} s")
        print(f"  image {megabytes([size])} MB, of which zkside and its packages {megabytes([own])} MB")
    assert max(resident) <= MOST_IDLE_BYTES
    # What another needed more, this machine did for somebody else.
    assert min(of_process) <= MOST_START_S
