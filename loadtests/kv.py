"""Locust users that read and write over a node's unix socket: latency as Python clients see it.

    locust -f loadtests/kv.py --headless --users 50 --spawn-rate 50 --run-time 30s --host /tmp/turbopump

Each user keeps a connection and speaks the pipe protocol on it, through a plain socket: the native module or
asyncio would block all users at once. Locust itself reports whole milliseconds, so a listener keeps
nanoseconds in HdrHistograms, and the end of the run prints their percentiles.

What it cannot show is said in README.md, under "Ceilings".
"""

import random
import socket
import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from hdrh.histogram import HdrHistogram
from locust import User, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import WorkerRunner

HIGHEST_NS = 60_000_000_000
DIGITS = 3
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)
FILL_DEPTH = 64
HEADER_PIPES = 2  # ok|name=value ... length=L|


class PipeError(Exception):
    """The server refuses a request, or what it answers is wrong."""


class Pipe:
    """A kept connection of the pipe protocol: one request, one framed reply."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._buffer = b""
        self._socket.sendall(b"keep|frame=1|\n")
        self.reply()

    def request(self, line: bytes) -> bytes:
        """What the server answers to a request."""
        self._socket.sendall(line)
        return self.reply()

    def send(self, lines: bytes) -> None:
        """Sends requests; `reply` must be called for each."""
        self._socket.sendall(lines)

    def reply(self) -> bytes:
        """The body of the next reply.

        Raises:
            PipeError: It is an error.
            ConnectionError: The server has closed the connection.
        """
        while self._buffer.count(b"|") < HEADER_PIPES:
            self._receive()
        end = self._buffer.index(b"|", self._buffer.index(b"|") + 1)
        header = self._buffer[:end]
        length = int(header[header.rindex(b"length=") + 7 :])
        body_end = end + 1 + length
        while len(self._buffer) <= body_end:
            self._receive()
        body, self._buffer = self._buffer[end + 1 : body_end], self._buffer[body_end + 1 :]
        if not header.startswith(b"ok|"):
            raise PipeError(f"{header.decode()}: {body.decode(errors='replace')}")
        return body

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def _receive(self) -> None:
        received = self._socket.recv(1 << 16)
        if not received:
            raise ConnectionError("the server closed the connection")
        self._buffer += received


class KeyValueUser(User):
    """Somebody who reads and writes keys at random, without a pause."""

    def on_start(self) -> None:
        """Connects."""
        options = self.environment.parsed_options
        assert options is not None  # noqa: S101 - locust has parsed its command line by now
        self.options: Namespace = options
        self.pipe = Pipe(str(self.host))

    def on_stop(self) -> None:
        """Leaves."""
        self.pipe.close()

    @task
    def work(self) -> None:
        """Reads a key or writes it, as `--reads` says."""
        key = random.randrange(self.options.keys)
        if random.randrange(100) < self.options.reads:
            self.ask("read", read(key), value(key, self.options.value_size))
        else:
            self.ask("write", write(key, self.options.value_size), b"")

    def ask(self, name: str, line: bytes, expected: bytes) -> None:
        """Sends a request, and tells locust how long it took and whether the answer is right."""
        wrong: Exception | None = None
        body = b""
        start = time.perf_counter_ns()
        try:
            body = self.pipe.request(line)
        except (OSError, PipeError) as error:
            wrong = error
        took = time.perf_counter_ns() - start
        if wrong is None and body != expected:
            wrong = PipeError(f"not the value that was written: {body[:40]!r}")
        self.environment.events.request.fire(
            request_type="pipe",
            name=name,
            response_time=took / 1e6,
            response_length=len(body),
            exception=wrong,
            context={},
        )
        if isinstance(wrong, OSError):
            raise StopUser  # without its connection a user has nothing left to do


def read(key: int) -> bytes:
    """The request for a value."""
    return b"read|name=key:%012d|\n" % key


def write(key: int, size: int) -> bytes:
    """The request that writes a value."""
    return b"write|name=key:%012d length=%d|%b\n" % (key, size, value(key, size))


def value(key: int, size: int) -> bytes:
    """The value under a key: digits of the key, then letters."""
    return (b"%012d" % key).ljust(size, b"v")[:size]


class Latencies:
    """How long requests took in this run, by name."""

    def __init__(self) -> None:
        self._histograms: defaultdict[str, Any] = defaultdict(lambda: HdrHistogram(1, HIGHEST_NS, DIGITS))
        self._start = time.monotonic()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._histograms)

    def start(self) -> None:
        """Forgets what was before."""
        self._histograms.clear()
        self._start = time.monotonic()

    def record(self, name: str, response_time: float, **_event: object) -> None:
        """Enters a request; locust gives milliseconds."""
        self._histograms[name].record_value(max(1, round(response_time * 1e6)))

    def take(self) -> dict[str, str]:
        """What was entered since the last time, to be sent to the process that sums up."""
        taken = {name: histogram.encode().decode() for name, histogram in self._histograms.items()}
        self._histograms.clear()
        return taken

    def add(self, taken: dict[str, str]) -> None:
        """Enters what another process took."""
        for name, encoded in taken.items():
            self._histograms[name].decode_and_add(encoded)

    def table(self) -> Iterator[str]:
        """The percentiles of the run, in lines."""
        seconds = time.monotonic() - self._start
        titles = ["requests/s", "min", *(f"p{percentile:g}" for percentile in PERCENTILES), "max"]
        yield f"{'latency in us':<14}" + "".join(f"{title:>12}" for title in titles)
        for name, histogram in sorted(self._histograms.items()):
            found = [histogram.get_value_at_percentile(percentile) for percentile in PERCENTILES]
            cells = [histogram.get_min_value(), *found, histogram.get_max_value()]
            rate = f"{histogram.get_total_count() / seconds:>12,.0f}"
            yield f"{name:<14}" + rate + "".join(f"{ns / 1e3:>12,.1f}" for ns in cells)


LATENCIES = Latencies()


def add_options(parser: ArgumentParser) -> None:
    """Our options, beside locust's own."""
    parser.add_argument("--keys", type=int, default=10_000, help="how many different ones")
    parser.add_argument("--value-size", type=int, default=100, help="bytes of a value")
    parser.add_argument("--reads", type=int, default=90, help="percent that read; the others write")


def fill(environment: Environment, **_event: object) -> None:
    """Writes every key once, so that every read finds one."""
    LATENCIES.start()
    options = environment.parsed_options
    if options is None or isinstance(environment.runner, WorkerRunner):
        return
    pipe = Pipe(str(environment.host))
    for start in range(0, options.keys, FILL_DEPTH):
        keys = range(start, min(start + FILL_DEPTH, options.keys))
        pipe.send(b"".join(write(key, options.value_size) for key in keys))
        for _ in keys:
            pipe.reply()
    pipe.close()
    LATENCIES.start()


def send_latencies(data: dict[str, Any], **_event: object) -> None:
    """With --processes: each worker sends its latencies along with its other figures."""
    data["latencies"] = LATENCIES.take()


def receive_latencies(data: dict[str, Any], **_event: object) -> None:
    """With --processes: the master sums them up."""
    LATENCIES.add(data.get("latencies", {}))


def print_latencies(**_event: object) -> None:
    """The end of the run."""
    if LATENCIES:
        print("\n".join(LATENCIES.table()))


hooks: Any = events  # they have no types
hooks.init_command_line_parser.add_listener(add_options)
hooks.test_start.add_listener(fill)
hooks.request.add_listener(LATENCIES.record)
hooks.report_to_master.add_listener(send_latencies)
hooks.worker_report.add_listener(receive_latencies)
hooks.quit.add_listener(print_latencies)
