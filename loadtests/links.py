"""Two network namespaces with a link between them, or none; and programs of the laboratory that run there.

Everything made here is gone when the `with` block is left, however it is left.
"""

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scenarios import Link, Loopback
from scenarios import Path as Between

DEVICE = "wire"
PORT = 9000
MTU = 1500
NUMBERS = count(1)


class LabError(RuntimeError):
    """A program of the laboratory ended without what it should have said; with what it said instead."""


class Program:
    """A program of the laboratory that runs. Enter it to start it; leaving ends it."""

    def __init__(self, lab: Path, command: str, options: Mapping[str, object]) -> None:
        self._command = [str(lab), command, json.dumps(options)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> Self:
        """Starts it."""
        self._process = subprocess.Popen(  # noqa: S603 - it is ours
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""
        self.end()
        for file in (self._process.stdout, self._errors):
            if file is not None:
                file.close()

    def say(self) -> dict[str, Any]:
        """The next thing that it says; it ends by itself if that takes too long.

        Raises:
            LabError: It ended.
        """
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        line = self._process.stdout.readline()
        if line:
            said: dict[str, Any] = json.loads(line)
            return said
        self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip()
        raise LabError(words or f"ended with {self._process.returncode} and no word")

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    def end(self) -> None:
        """Ends it if it still runs: with SIGTERM, at which a link reports."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
        # What it said last may be read after its end.
        self._process.wait()


class Network:
    """Two ends and what is between them. Enter it to make it.

    Attributes:
        ends: The namespaces; None when there are none.
        address: Where the second end is.
        lab: The laboratory's program.
        link: The emulator, if there is one.
    """

    def __init__(self, path: Between, *, seed: int, limit_seconds: float, lab: Path) -> None:
        self.ends: tuple[str, str] | None = None
        self.address = "127.0.0.1"
        self.link: Program | None = None
        self.lab = lab
        self._path, self._seed, self._limit = path, seed, limit_seconds
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Makes the namespaces and starts the emulator."""
        if isinstance(self._path, Loopback):
            return self
        try:
            self._make()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the emulator and removes the namespaces."""
        self._stack.close()

    def end_link(self) -> dict[str, Any]:
        """Ends the emulator; what it has counted. Empty if there is none."""
        if self.link is None:
            return {}
        self.link.end()
        return self.link.say()

    def port(self) -> int:
        """A port that is free, and the next one too: always the same in a namespace, which is new."""
        return PORT if self.ends else free_port()

    def _make(self) -> None:
        name = f"turbopump-lab-{os.getpid()}-{next(NUMBERS)}"
        self.ends = (f"{name}a", f"{name}b")
        for end in self.ends:
            ip("netns", "add", end)
            self._stack.callback(ip, "netns", "delete", end)
        if isinstance(self._path, Link):
            for end in self.ends:
                ip("-n", end, "tuntap", "add", "mode", "tun", "name", DEVICE)
        else:
            peer = ("peer", "name", DEVICE, "netns", self.ends[1])
            ip("link", "add", DEVICE, "netns", self.ends[0], "type", "veth", *peer)
        for number, end in enumerate(self.ends, 1):
            ip("-n", end, "address", "add", f"10.99.0.{number}/24", "dev", DEVICE)
            ip("-n", end, "link", "set", DEVICE, "mtu", str(MTU), "txqueuelen", "10000", "up")
        self.address = "10.99.0.2"
        if isinstance(self._path, Link):
            self.link = self._stack.enter_context(Program(self.lab, "link", self._link_options(self._path)))
            self.link.say()

    def _link_options(self, link: Link) -> dict[str, object]:
        return {
            "namespaces": self.ends,
            "device": DEVICE,
            "mtu": MTU,
            "seed": self._seed,
            "there": link.conditions(),
            "limit_seconds": self._limit,
        }


@contextmanager
def peers(network: Network, runs: Sequence[Mapping[str, object]]) -> Iterator[list[tuple[Program, Program]]]:
    """Receivers at the second end, and senders at the first that begin once all receivers are ready."""
    with ExitStack() as stack:
        options: list[dict[str, object]] = []
        receivers: list[Program] = []
        for number, run in enumerate(runs):
            # Ports two apart: a run may use the next one too.
            options.append({**run, "address": f"{network.address}:{network.port() + 2 * number}"})
            receivers.append(
                stack.enter_context(Program(network.lab, "receive", at(network, 1, options[-1])))
            )
        for receiver in receivers:
            receiver.say()
        senders = [stack.enter_context(Program(network.lab, "send", at(network, 0, one))) for one in options]
        yield list(zip(receivers, senders, strict=True))


def at(network: Network, end: int, options: Mapping[str, object]) -> dict[str, object]:
    """Options for a peer at one of the ends."""
    return {**options, "namespace": network.ends[end]} if network.ends else dict(options)


def ip(*words: str) -> None:
    """Runs `ip`.

    Raises:
        LabError: It refused, with its reason.
    """
    command = ["ip", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")


def free_port() -> int:
    """A port of loopback that nobody has, for TCP as for UDP; most likely the next one is free as well."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        port: int = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
    return port
