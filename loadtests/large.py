"""Values up to 1 GiB through a node's socket, in and out: how fast, in how much memory, at whose expense.

    python loadtests/large.py                      # starts a node of its own
    python loadtests/large.py --sizes 1MiB 64MiB

For each size a value goes in (`write|... length=N|`), comes out and is compared, and is deleted, over and
over, while another client reads small values at a fixed rate. Reported are MB/s each way, how far the node's
resident memory rose above idle at most, the other client's latency (told first for when nobody else asks),
and how many CPUs the rest of the machine kept busy. Ends with 1 if the memory or the other client's p99 is
beyond the limits below.
"""

import argparse
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from servers import Server, on_cpu, recipes, status_bytes
from turbopump import build_info
from turbopump._native import load
from turbopump.config import parse_size
from workloads import NOISE

BLOCK = 1 << 20
KEY = "large"
REPLY_SECONDS = 120.0
IDLE_COLUMNS = {3, 4}  # of /proc/stat: idle, and idle for want of a disk
NICENESS = 19
"""Of the thread that moves large values: where it shares a CPU with the other client, it gives way."""

MEMORY_FACTOR_MAX = 1.2
"""Of the value's size: it is there once, and what is on its way is small."""
MEMORY_SLACK = 32 << 20
"""For values so small that allocators and buffers weigh more."""
P99_US_MAX = 2000.0


@dataclass
class Moved:
    """What moving values of a size came to."""

    size: int
    in_seconds: list[float] = field(default_factory=list)
    out_seconds: list[float] = field(default_factory=list)
    peak: int = 0
    beside: dict[str, Any] = field(default_factory=dict)
    others: float = 0.0

    @property
    def problems(self) -> Iterator[str]:
        """What is beyond the limits."""
        allowed = max(self.size * MEMORY_FACTOR_MAX, self.size + MEMORY_SLACK)
        if self.peak > allowed:
            yield f"{text(self.size)}: {text(self.peak)} above idle, {text(int(allowed))} at most"
        if self.beside["latency_us"]["p99"] > P99_US_MAX:
            p99 = self.beside["latency_us"]["p99"]
            problem = f"another client's p99 is {p99:,.0f} us, {P99_US_MAX:,.0f} at most"
            noise = f" (but others kept {self.others:.2f} CPUs busy)" if self.others > NOISE else ""
            yield f"{text(self.size)}: {problem}{noise}"

    def row(self) -> str:
        """It as a line of the table."""
        speeds = (self.size / median(times) / 1e6 for times in (self.in_seconds, self.out_seconds))
        latency = self.beside["latency_us"]
        cells = [text(self.size), str(len(self.in_seconds)), *(f"{speed:,.0f}" for speed in speeds)]
        cells += [text(self.peak), *(f"{latency[name]:,.0f}" for name in ("p50", "p99", "max"))]
        cells.append(f"{self.others:.2f}")
        return "".join(f"{cell:>12}" for cell in cells)


class LargeValue:
    """A value of random blocks that is never whole in this process."""

    def __init__(self, path: str, size: int) -> None:
        self.size = size
        self._path = path
        self._block = os.urandom(BLOCK)

    def write(self) -> float:
        """Sends it; returns the seconds until the node has it."""
        start = time.perf_counter()
        with connected(self._path) as node:
            node.sendall(f"write|name={KEY} length={self.size}|".encode())
            for block in self._blocks():
                node.sendall(block)
            expect(node, b"ok|")
        return time.perf_counter() - start

    def read(self) -> float:
        """Receives it and compares; returns the seconds that took."""
        received = bytearray(BLOCK)
        start = time.perf_counter()
        with connected(self._path) as node:
            node.sendall(f"read|name={KEY}|\n".encode())
            for block in self._blocks():
                length = receive(node, memoryview(received)[: len(block)])
                # Bytes are compared by memcmp, views of them one by one.
                right = received == block if length == BLOCK else received[:length] == block
                if not right:
                    raise RuntimeError(f"what came out is not what went in: {bytes(received[:80])!r}")
            if node.recv(1):
                raise RuntimeError("more came out than went in")
        return time.perf_counter() - start

    def delete(self) -> None:
        """Gives the memory back."""
        with connected(self._path) as node:
            node.sendall(f"delete|name={KEY}|\n".encode())
            expect(node, b"ok|deleted=1")

    def _blocks(self) -> Iterator[bytes]:
        whole, rest = divmod(self.size, BLOCK)
        for _ in range(whole):
            yield self._block
        if rest:
            yield self._block[:rest]


@contextmanager
def connected(path: str) -> Iterator[socket.socket]:
    """A connection to the node, for one command."""
    with socket.socket(socket.AF_UNIX) as node:
        node.settimeout(REPLY_SECONDS)
        node.connect(path)
        yield node


def receive(node: socket.socket, room: memoryview) -> int:
    """Fills the room; returns how much came before the end."""
    length = 0
    while length < len(room) and (more := node.recv_into(room[length:])):
        length += more
    return length


def expect(node: socket.socket, start: bytes) -> None:
    """Receives a reply of one line.

    Raises:
        RuntimeError: It does not begin as it should.
    """
    reply = b""
    while not reply.endswith(b"\n") and (received := node.recv(4096)):
        reply += received
    if not reply.startswith(start):
        raise RuntimeError(f"the node answers {reply!r}")


def main() -> int:
    """Reads the command line, measures, prints."""
    options = parse()
    if build_info()["profile"] != "release":
        print("large: a debug build's figures mean nothing: make build makes a release", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="turbopump-large-") as folder:
        recipe = recipes()["turbopump"]
        with Server(recipe, Path(folder), cpus()[0]) as server:
            quiet = beside(server, options, prefill=True)
            idle = server.resident_bytes()
            latency = ", ".join(f"{name} {quiet['latency_us'][name]:,.0f}" for name in ("p50", "p99", "max"))
            print(f"idle: {text(idle)} resident; the other client alone: {latency} us")
            titles = (
                "value",
                "times",
                "in MB/s",
                "out MB/s",
                "above idle",
                "p50 us",
                "p99 us",
                "max us",
                "others",
            )
            print("".join(f"{title:>12}" for title in titles))
            problems: list[str] = []
            for size in options.sizes:
                moved = quietest(move(server, size, idle, options) for _ in range(1 + options.retries))
                print(moved.row(), flush=True)
                problems += moved.problems
    print("\n".join(problems) or "all within the limits")
    return 1 if problems else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Move values up to 1 GiB in and out of a node.")
    sizes = [1 << 20, 16 << 20, 128 << 20, 1 << 30]
    parser.add_argument("--sizes", nargs="+", type=parse_size, default=sizes, metavar="SIZE", help="as 64MiB")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each size, at least one round")
    parser.add_argument("--retries", type=int, default=3, help="of a size, while others disturb it")
    parser.add_argument("--rate", type=int, default=2000, help="requests a second of the other client")
    return parser.parse_args()


def quietest(tries: Iterable[Moved]) -> Moved:
    """The first that nobody else disturbed, or the one that was disturbed least."""
    best: Moved | None = None
    for moved in tries:
        best = moved if best is None or moved.others < best.others else best
        if best.others <= NOISE:
            break
    if best is None:
        raise ValueError("nothing was tried")
    return best


def move(server: Server, size: int, idle: int, options: argparse.Namespace) -> Moved:
    """Moves values of a size for a while, and looks at what that does."""
    moved, over, failures = Moved(size), threading.Event(), list[Exception]()
    value = LargeValue(server.address, size)

    def work() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            with on_cpu(cpus()[2]):
                while not (over.is_set() and moved.out_seconds):
                    moved.in_seconds.append(value.write())
                    moved.out_seconds.append(value.read())
                    value.delete()
        except (OSError, RuntimeError) as failure:
            failures.append(failure)

    reset_peak(server.pids[0])
    thread = threading.Thread(target=work)
    busy, start = others_seconds(server.pids[0]), time.perf_counter()
    thread.start()
    try:
        moved.beside = beside(server, options, prefill=False)
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]
    moved.others = (others_seconds(server.pids[0]) - busy) / (time.perf_counter() - start)
    moved.peak = max(0, status_bytes(server.pids[0], "VmHWM") - idle)
    return moved


def beside(server: Server, options: argparse.Namespace, *, prefill: bool) -> dict[str, Any]:
    """What another client sees, that reads small values at a rate."""
    small = {
        "address": server.address,
        "protocol": "resp",
        "connections": 10,
        "keys": 1000,
        "prefill": prefill,
    }
    return load({**small, "rate": options.rate, "seconds": options.seconds, "cpu": cpus()[1]})


def cpus() -> tuple[int | None, int | None, int | None]:
    """Where the node, the other client and the one with large values run. On one CPU there is no choice."""
    some = sorted(os.sched_getaffinity(0))
    return (some[0], some[1], some[min(2, len(some) - 1)]) if len(some) > 1 else (None, None, None)


def others_seconds(pid: int) -> float:
    """CPU time of all but this process and the node, in seconds; only differences mean anything."""
    machine = [int(ticks) for ticks in Path("/proc/stat").read_text().split()[1:9]]
    busy = sum(ticks for column, ticks in enumerate(machine) if column not in IDLE_COLUMNS)
    node = sum(
        int(ticks) for ticks in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    )
    return (busy - node) / os.sysconf("SC_CLK_TCK") - time.process_time()


def reset_peak(pid: int) -> None:
    """Makes a process's VmHWM, its largest resident memory, begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def text(size: int) -> str:
    """A size for people."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} B"


if __name__ == "__main__":
    sys.exit(main())
