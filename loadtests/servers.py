"""The servers that are measured side by side: how each is started, pinned, paused and ended.

All of a benchmark's servers are up from its start; those that are not measured are stopped with SIGSTOP: they
cost nothing then, and each is warm when its turn comes.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

HERE = Path(__file__).resolve().parent
START_SECONDS = 20.0
STOP_SECONDS = 20.0
MEMCACHED_MIB = 1024


@dataclass(frozen=True)
class Recipe:
    """How to start a server, SOCKET standing for the path of its socket, and what it speaks."""

    name: str
    commands: Sequence[Sequence[str]]
    protocol: str
    one_shot_protocol: str
    socket: str | None = None
    """The name of its socket, where it cannot be told one."""

    @property
    def missing(self) -> str | None:
        """The program that is not installed, if one is not."""
        return next((command[0] for command in self.commands if shutil.which(command[0]) is None), None)


def recipes() -> dict[str, Recipe]:
    """Every server that a workload may name."""
    node = [sys.executable, str(HERE / "busy.py"), "--socket", "SOCKET"]
    serve = [sys.executable, "-m", "turbopump", "serve", "--socket", "SOCKET"]
    redis = ["redis-server", "--port", "0", "--unixsocket", "SOCKET", "--save", "", "--appendonly", "no"]
    memcached = ["memcached", "-t", "1", "-s", "SOCKET", "-m", str(MEMCACHED_MIB), "-u", _user()]
    alone = [sys.executable, str(HERE / "busy.py"), "--work", "thread"]
    found = (
        Recipe("turbopump", [serve], "resp", "pipe"),
        Recipe("redis", [redis], "resp", "resp"),
        Recipe("memcached", [memcached], "memcached", "memcached"),
        Recipe("turbopump, busy loop", [[*node, "--work", "loop"]], "resp", "pipe"),
        Recipe("busy thread in the node", [[*node, "--work", "thread"]], "resp", "pipe"),
        Recipe("busy process beside it", [[*node, "--work", "none"], alone], "resp", "pipe"),
    )
    return {recipe.name: recipe for recipe in found}


class Server:
    """A running server. Enter it to start it; leaving ends its processes."""

    def __init__(self, recipe: Recipe, folder: Path, cpu: int | None) -> None:
        self.recipe = recipe
        named = recipe.name.replace(" ", "-").replace(",", "")
        self.address = str(folder / (recipe.socket or f"{named}.sock"))
        self._log = folder / f"{recipe.name}.log"
        self._cpu = cpu
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Starts it and waits until it answers.

        Raises:
            RuntimeError: It ended, or did not answer in time; with what it said.
        """
        try:
            with self._log.open("wb") as log, on_cpu(self._cpu):
                for command in self.recipe.commands:
                    words = [self.address if word == "SOCKET" else word for word in command]
                    started = subprocess.Popen(  # noqa: S603 - a recipe, see above
                        words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._log.parent
                    )
                    self._processes.append(started)
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends its processes."""
        self._end()

    @property
    def pids(self) -> list[int]:
        """Its processes: first the one that serves."""
        return [process.pid for process in self._processes]

    def protocol(self, *, one_shot: bool) -> str:
        """What to speak to it."""
        return self.recipe.one_shot_protocol if one_shot else self.recipe.protocol

    def pause(self) -> None:
        """Keeps it from running."""
        self._signal(signal.SIGSTOP)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Lets it run for a while."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def resident_bytes(self) -> int:
        """Physical memory of the process that serves."""
        return status_bytes(self.pids[0], "VmRSS")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(self.address)
                return
            for process in self._processes:
                # Waiting for it to end is what passes the time: it should not.
                with suppress(subprocess.TimeoutExpired):
                    code = process.wait(0.02)
                    raise RuntimeError(f"{self.recipe.name} ended with {code}: {self._said()}")
        raise RuntimeError(f"{self.recipe.name} does not answer after {START_SECONDS:g} s: {self._said()}")

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-2000:].strip() or "it said nothing"

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def _end(self) -> None:
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        for process in self._processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def on_cpu(cpu: int | None) -> Iterator[None]:
    """Runs on one CPU what is started meanwhile: a child is born where its parent may be."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def status_bytes(pid: int, field: str) -> int:
    """A size in /proc/PID/status, such as VmRSS."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _user() -> str:
    """Who runs this: memcached will not be root unless told so."""
    return pwd.getpwuid(os.geteuid()).pw_name
