"""A cluster on this machine, to be measured: its directory, its nodes as processes, what they say.

The directory is what `turbopump init` makes, with sockets beside it and ports that are free.
"""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from turbopump import Client
from turbopump.directory import FILE, Plan, make
from turbopump.errors import ConnectionLostError

START_SECONDS = 30.0
STOP_SECONDS = 20.0
LOOK_SECONDS = 0.005
"""Between two looks at a node: asking costs it some 100 us."""

SYNC_SECONDS = 0.2
"""What the nodes compare at: a fifth of the default, so that a time is not that of the next comparison."""


class Nodes:
    """A cluster. Enter it to start its nodes; leaving ends them.

    Attributes:
        sockets: Where clients find each node, by name.
        processes: Those that run, by name.
    """

    def __init__(self, folder: Path, count: int, settings: Mapping[str, Any] | None = None) -> None:
        """Makes the directory.

        Args:
            folder: Is there; gets the directory and the sockets. Its path is short enough for sockets.
            count: Of nodes.
            settings: Sections of cluster.json; `cluster` is added to what stands there.
        """
        self._directory = folder / "cluster"
        config = make(self._directory, Plan(nodes=count, tcp_port=None, socket_directory=folder))
        self.names: Sequence[str] = tuple(member.name for member in config.members)
        self.sockets = {name: str(folder / f"turbopump-{name}") for name in self.names}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._clients: dict[str, Client] = {}
        file = self._directory / FILE
        document = json.loads(file.read_text(encoding="utf-8"))
        for member, port in zip(document["members"], free_ports(count), strict=True):
            member |= {"address": f"127.0.0.1:{port}", "socket": self.sockets[member["name"]]}
        given = dict(settings or {})
        document["cluster"] |= {"sync_seconds": SYNC_SECONDS} | given.pop("cluster", {})
        file.write_text(json.dumps(document | given), encoding="utf-8")

    def __enter__(self) -> Self:
        """Starts all nodes and waits until they know each other.

        Raises:
            RuntimeError: They do not; with what one of them said.
        """
        try:
            for name in self.names:
                self.start(name)
            self.until(self.whole, START_SECONDS, "the nodes to know each other")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the nodes."""
        self._end()

    @property
    def pids(self) -> list[int]:
        """Of the nodes that run."""
        return [process.pid for process in self.processes.values()]

    def start(self, name: str) -> None:
        """Starts a node, and does not wait for it."""
        serve = [sys.executable, "-m", "turbopump", "serve", str(self._directory / FILE), "--node", name]
        with self._log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(  # noqa: S603 - `turbopump serve`
                serve, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        """Ends a node as kill -9 does, in the middle of whatever it is doing."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a node a signal."""
        self.processes[name].send_signal(number)

    def status(self, name: str) -> dict[str, Any]:
        """What a node says of itself. It has no peers and -1 keys while it does not answer."""
        client = self._clients.setdefault(name, Client(self.sockets[name], timeout=5.0))
        try:
            return client.status()
        except ConnectionLostError:
            return {"peers": [], "keys": -1}

    def peer(self, name: str, other: str) -> dict[str, Any]:
        """What a node says of another one, nothing while it does not answer."""
        told: Sequence[dict[str, Any]] = self.status(name)["peers"]
        return next((peer for peer in told if peer["name"] == other), {"state": "unknown"})

    def whole(self) -> bool:
        """Whether each node answers and has all others for alive."""
        return all(len(alive(self.status(name))) == len(self.names) - 1 for name in self.names)

    def equal(self, since: float) -> bool:
        """Whether all nodes hold the same, as each pair of them found after `since`, by time.monotonic."""
        keys = set()
        for name in self.names:
            status = self.status(name)
            ago_ms = (time.monotonic() - since) * 1000
            keys.add(status["keys"])
            peers = alive(status)
            if len(peers) < len(self.names) - 1 or not all(were_equal(peer, ago_ms) for peer in peers):
                return False
        return len(keys) == 1

    def until(self, holds: Callable[[], bool], seconds: float, what: str) -> float:
        """Asks until it is so; returns how many seconds that took.

        Raises:
            RuntimeError: It took too long, or a node has ended by itself.
        """
        begun = time.monotonic()
        while not holds():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"node {name} ended with {process.returncode}: {self.said(name)}")
            if time.monotonic() > begun + seconds:
                peers = {name: self.status(name) for name in self.processes}
                raise RuntimeError(f"{seconds:g} s were not enough for {what}: {json.dumps(peers)}")
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - begun

    def said(self, name: str) -> str:
        """The end of what a node logged."""
        return self._log(name).read_text(errors="replace")[-2000:].strip() or "it said nothing"

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _end(self) -> None:
        with ExitStack() as stack:
            for client in self._clients.values():
                client.close()
            for process in self.processes.values():
                stack.callback(ended, process)
                process.terminate()
                process.send_signal(signal.SIGCONT)


def alive(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The peers that a node has for alive."""
    return [peer for peer in status["peers"] if peer["state"] == "alive"]


def were_equal(peer: Mapping[str, Any], within_ms: float) -> bool:
    """Whether a comparison with a peer that began within the last milliseconds found no difference."""
    ago_ms = peer.get("last_equal_ms")
    return ago_ms is not None and ago_ms < within_ms


def free_ports(count: int, kind: socket.SocketKind = socket.SOCK_DGRAM) -> list[int]:
    """Ports that were free a moment ago, of UDP if nothing else is said."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, kind)) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def ended(process: subprocess.Popen[bytes]) -> None:
    """Waits until a process has ended, and does not wait for ever."""
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
