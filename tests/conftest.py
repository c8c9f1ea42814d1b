"""Fixtures: real nodes in processes of their own, on temporary sockets, awaited and never slept for."""

import asyncio
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

DEADLINE_SECONDS = 30.0  # for a process to start or to end on a machine that is busy with other tests

# Jobs that a script leaves in the background ignore it, and what the tests start would ignore it as well.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Served:
    """A `turbopump serve` process.

    Attributes:
        socket: The path that clients connect to.
        process: The process.
        log: The file with what it wrote to stderr.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any] | None,
        arguments: tuple[str, ...],
        within: Sequence[str] = (),
    ) -> None:
        self.socket = str(folder / "s")
        self.log = folder / "log"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(folder / "n"))
        command = [*within, sys.executable, "-m", "turbopump", "serve", "--socket", self.socket, *arguments]
        if config is not None:
            file = folder / "cluster.json"
            file.write_text(json.dumps(config), encoding="utf-8")
            command.append(str(file))
        environment = os.environ | {"NOTIFY_SOCKET": str(folder / "n")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, env=environment)

    def ready(self) -> "Served":
        """Waits until it says so."""
        status = self.notified()
        assert status.startswith("READY=1"), status or self.text()
        return self

    def notified(self) -> str:
        """The next thing it tells systemd, nothing if it ended instead."""
        exit_fd = os.pidfd_open(self.process.pid)
        try:
            poller = select.poll()
            poller.register(self._notify, select.POLLIN)
            poller.register(exit_fd, select.POLLIN)
            happened = dict(poller.poll(DEADLINE_SECONDS * 1000))
            assert happened, f"nothing within {DEADLINE_SECONDS} s: {self.text()}"
            return self._notify.recv(4096).decode() if self._notify.fileno() in happened else ""
        finally:
            os.close(exit_fd)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Waits until it has ended; its exit code."""
        return self.process.wait(DEADLINE_SECONDS)

    def stop(self) -> int:
        """Ends it as an operator would; its exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def text(self) -> str:
        """What it logged so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """Ends it at once if it runs still."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_SECONDS)
        self._notify.close()


Serve = Callable[..., Served]
NUMBERS = itertools.count()


async def turn() -> None:
    """Lets everything run that is ready."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done


@pytest.fixture
def prefix() -> str:
    """What the keys of a test begin with, on a node that others use too."""
    return f"{next(NUMBERS)}/"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="tp-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts nodes: `serve(config, *arguments)` returns one that has started, but may not be ready.

    `within` is what the command begins with.
    """
    with ExitStack() as stack:

        def start(
            config: dict[str, Any] | None = None, *arguments: str, within: Sequence[str] = ()
        ) -> Served:
            path = Path(tempfile.mkdtemp(prefix="tp-", dir="/tmp"))
            stack.callback(shutil.rmtree, path)
            served = Served(path, config, arguments, within)
            stack.callback(served.close)
            return served

        yield start


@pytest.fixture(scope="module")
def node() -> Iterator[Served]:
    """A node that the tests of a file share: each uses keys of its own."""
    path = Path(tempfile.mkdtemp(prefix="tp-", dir="/tmp"))
    served = Served(path, None, ())
    try:
        yield served.ready()
    finally:
        served.close()
        shutil.rmtree(path)
