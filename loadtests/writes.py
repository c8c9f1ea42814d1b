"""A small load generator that writes, the same for servers whose protocols the native one does not speak.

One thread of Python: some 50,000 writes a second over 50 connections. It returns figures as the native one
does.
"""

import random
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

KEY_BYTES, VALUE_BYTES = 16, 100
REPLY_SECONDS = 10.0
RECEIVE_BYTES = 65536
IDLE_COLUMNS = {3, 4}  # of /proc/stat: idle, and idle for want of a disk
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


class RefusedError(Exception):
    """A server did not do as asked."""


class Wire(Protocol):
    """A connection's side of a protocol: one write at a time."""

    def hello(self) -> bytes:
        """What is sent first; no answer is awaited."""

    def write(self, key: bytes, value: bytes) -> bytes:
        """The next request, with whatever the server is owed besides."""

    def take(self, data: bytes) -> bool:
        """Takes what came; tells whether it ends the answer.

        Raises:
            RefusedError: The server says no, or something else.
        """


class Resp:
    """SET as Redis has it."""

    def __init__(self) -> None:
        self._inbox = b""

    def hello(self) -> bytes:
        """Nothing."""
        return b""

    def write(self, key: bytes, value: bytes) -> bytes:
        """A SET."""
        return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value)

    def take(self, data: bytes) -> bool:
        """The line that says OK."""
        self._inbox += data
        if not self._inbox.endswith(b"\n"):
            return False
        inbox, self._inbox = self._inbox, b""
        if inbox != b"+OK\r\n":
            raise RefusedError(repr(inbox[:200]))
        return True


class RespWait(Resp):
    """SET, and in the same packet WAIT for one replica: with the primary two of three have it."""

    def write(self, key: bytes, value: bytes) -> bytes:
        """A SET and a WAIT."""
        return super().write(key, value) + b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$4\r\n1000\r\n"

    def take(self, data: bytes) -> bool:
        """The line that says OK and the one that counts replicas."""
        self._inbox += data
        if self._inbox.count(b"\n") < 2 and not self._inbox.startswith(b"-"):
            return False
        inbox, self._inbox = self._inbox, b""
        if inbox not in {b"+OK\r\n:1\r\n", b"+OK\r\n:2\r\n"}:
            raise RefusedError(repr(inbox[:200]))
        return True


class Grpc:
    """etcd's Put: gRPC over HTTP/2, as much of it as one request at a time needs."""

    DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
    END_STREAM, ACK, END_HEADERS = 1, 1, 4
    HEAD = struct.Struct(">BHBBI")

    def __init__(self) -> None:
        path, kind = b"/etcdserverpb.KV/Put", b"application/grpc"
        self._headers = b"\x83\x86\x04%c%b\x01\x09localhost\x0f\x10%c%b\x00\x02te\x08trailers" % (
            len(path),
            path,
            len(kind),
            kind,
        )
        self._inbox = b""
        self._owed = b""
        self._stream = -1
        self._answered = False

    def hello(self) -> bytes:
        """The preface, and room for all answers to come."""
        window = struct.pack(">I", (1 << 31) - 1 - 65535)
        settings = self._frame(self.SETTINGS, 0, 0, b"") + self._frame(self.WINDOW, 0, 0, window)
        return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings

    def write(self, key: bytes, value: bytes) -> bytes:
        """A stream with one message; lengths below 128 are one byte in protobuf."""
        put = b"\x0a%c%b\x12%c%b" % (len(key), key, len(value), value)
        self._stream += 2
        self._answered = False
        owed, self._owed = self._owed, b""
        message = b"\x00" + struct.pack(">I", len(put)) + put
        headers = self._frame(self.HEADERS, self.END_HEADERS, self._stream, self._headers)
        return owed + headers + self._frame(self.DATA, self.END_STREAM, self._stream, message)

    def take(self, data: bytes) -> bool:
        """Frames up to the one that ends the stream; without a message before that it was refused."""
        self._inbox += data
        ended = False
        while len(self._inbox) >= self.HEAD.size:
            high, low, kind, flags, stream = self.HEAD.unpack_from(self._inbox)
            end = self.HEAD.size + (high << 16 | low)
            if len(self._inbox) < end:
                break
            body, self._inbox = self._inbox[self.HEAD.size : end], self._inbox[end:]
            ended |= self._handle(kind, flags, stream, body)
        return ended

    def _handle(self, kind: int, flags: int, stream: int, body: bytes) -> bool:
        if kind in {self.RESET, self.GOAWAY}:
            raise RefusedError(f"frame {kind}: {body!r}")
        if kind in {self.SETTINGS, self.PING} and not flags & self.ACK:
            self._owed += self._frame(kind, self.ACK, 0, body if kind == self.PING else b"")
        if stream != self._stream or kind not in {self.DATA, self.HEADERS}:
            return False
        self._answered |= kind == self.DATA and len(body) > 0
        if flags & self.END_STREAM and not self._answered:
            raise RefusedError(f"no answer but {body!r}")
        return bool(flags & self.END_STREAM)

    def _frame(self, kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return self.HEAD.pack(len(body) >> 16, len(body) & 0xFFFF, kind, flags, stream) + body


class Connection:
    """A socket with its wire.

    Attributes:
        since: When the request that is under way was sent, by time.perf_counter_ns.
    """

    def __init__(self, path: str, wire: Wire) -> None:
        self.since = 0
        self._wire = wire
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(REPLY_SECONDS)
        self._socket.connect(path)
        self._socket.sendall(wire.hello())

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def ask(self, key: bytes, value: bytes) -> None:
        """Sends a write."""
        request = self._wire.write(key, value)
        self.since = time.perf_counter_ns()
        self._socket.sendall(request)

    def hear(self) -> bool:
        """Receives; tells whether the write is answered.

        Raises:
            RefusedError: It is refused, or the server went away.
        """
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            raise RefusedError("the server has closed the connection")
        return self._wire.take(data)


def run(
    address: str,
    wire: Callable[[], Wire],
    pids: Sequence[int],
    *,
    connections: int,
    keys: int,
    seconds: float,
    warmup_seconds: float,
) -> dict[str, Any]:
    """Writes any of some keys over and over, the next one of a connection when the last is answered.

    Args:
        address: A unix socket.
        wire: Makes the protocol's side of a connection.
        pids: The server's processes.
        connections: At once.
        keys: How many different ones.
        seconds: How long to measure.
        warmup_seconds: How long to write before that.

    Raises:
        OSError: The server cannot be reached, or does not answer in time.
        RefusedError: It refuses a write.
    """
    chance = random.Random(keys)
    with ExitStack() as stack:
        opened = [Connection(address, wire()) for _ in range(connections)]
        for connection in opened:
            stack.callback(connection.close)
        load = _one if connections == 1 else _many
        load(opened, chance, keys, warmup_seconds)
        begun = (time.perf_counter(), cpu_seconds(pids), time.thread_time(), machine_seconds())
        latencies = load(opened, chance, keys, seconds)
        ended = (time.perf_counter(), cpu_seconds(pids), time.thread_time(), machine_seconds())
    took, server, client, all_ = (after - before for before, after in zip(begun, ended, strict=True))
    return figures(latencies, took, server, client, all_ - server - client)


def figures(
    latencies: list[int], seconds: float, server: float, client: float, other: float
) -> dict[str, Any]:
    """What a run came to, as the native generator says it.

    Args:
        latencies: Of each write, in nanoseconds.
        seconds: How long the run was.
        server: CPU seconds of the server.
        client: Of this side.
        other: Of everybody else.
    """
    ordered = sorted(latencies)
    at = {
        name: ordered[min(int(len(ordered) * share), len(ordered) - 1)] for name, share in PERCENTILES.items()
    }
    return {
        "requests": len(ordered),
        "rate": len(ordered) / seconds,
        "latency_us": {name: nanoseconds / 1000 for name, nanoseconds in at.items()},
        "server_us_per_request": server * 1e6 / len(ordered),
        "client_cpu": client / seconds,
        "other_cpu": max(0.0, other / seconds),
    }


def _one(opened: Sequence[Connection], chance: random.Random, keys: int, seconds: float) -> list[int]:
    """One connection, without epoll: as a plain client waits."""
    [connection] = opened
    latencies, over = list[int](), time.perf_counter_ns() + int(seconds * 1e9)
    now = 0
    while now < over:
        connection.ask(*pair(chance, keys))
        while not connection.hear():
            pass
        now = time.perf_counter_ns()
        latencies.append(now - connection.since)
    return latencies


def _many(opened: Sequence[Connection], chance: random.Random, keys: int, seconds: float) -> list[int]:
    """Many connections; all are answered at the end."""
    latencies, over = list[int](), time.perf_counter_ns() + int(seconds * 1e9)
    with select.epoll() as poll:
        waiting = {connection.fileno(): connection for connection in opened}
        for connection in opened:
            poll.register(connection, select.EPOLLIN)
            connection.ask(*pair(chance, keys))
        while waiting:
            ready = poll.poll(REPLY_SECONDS)
            if not ready:
                raise RefusedError(f"no answer within {REPLY_SECONDS:g} s")
            for number, _ in ready:
                connection = waiting[number]
                if not connection.hear():
                    continue
                now = time.perf_counter_ns()
                if now < over:
                    latencies.append(now - connection.since)
                    connection.ask(*pair(chance, keys))
                else:
                    poll.unregister(number)
                    del waiting[number]
    return latencies


def pair(chance: random.Random, keys: int) -> tuple[bytes, bytes]:
    """A key of 16 bytes, and a value of 100 that begins with it."""
    key = b"key:%012d" % int(chance.random() * keys)
    return key, key.ljust(VALUE_BYTES, b"v")


def cpu_seconds(pids: Sequence[int]) -> float:
    """What all threads of some processes have run."""
    tasks = (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def machine_seconds() -> float:
    """What all CPUs together have run."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split()[1:9]]
    return sum(count for column, count in enumerate(ticks) if column not in IDLE_COLUMNS) / 100
