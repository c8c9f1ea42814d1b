"""What replicates writes and is measured side by side: nodes, Redis, etcd; how each is started."""

import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nodes import Nodes, free_ports
from servers import Recipe, Server, recipes
from writes import Grpc, Resp, RespWait, Wire

START_SECONDS = 30.0
LOOK_SECONDS = 0.05
T = TypeVar("T")

MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there


@dataclass(frozen=True)
class Side:
    """What runs and can be written to."""

    address: str
    pids: list[int]
    wire: Callable[[], Wire]


Starter = Callable[[Path], AbstractContextManager[Side]]


def starters() -> Mapping[str, Starter]:
    """All sides by their names, each to be started in a folder of its own."""
    return {"turbopump, 3 nodes": _three, "turbopump, 1 node": _alone, "redis, WAIT 1": _redis, "etcd": _etcd}


def missing(name: str) -> str | None:
    """The program that a side needs and that is not installed."""
    program = {"redis, WAIT 1": "redis-server", "etcd": "etcd"}.get(name)
    return program if program and shutil.which(program) is None else None


@contextmanager
def _three(folder: Path) -> Iterator[Side]:
    with Nodes(folder, 3, {"keyspaces": [{"prefix": "", "write_acks": "quorum"}]}) as nodes:
        yield Side(nodes.sockets["a"], nodes.pids, Resp)


@contextmanager
def _alone(folder: Path) -> Iterator[Side]:
    with Server(recipes()["turbopump"], folder, None) as server:
        yield Side(server.address, server.pids, Resp)


@contextmanager
def _redis(folder: Path) -> Iterator[Side]:
    """A primary, which clients reach over a unix socket and replicas over TCP: they know no other way."""
    [port] = free_ports(1, socket.SOCK_STREAM)
    redis = ["redis-server", "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]
    follow = ["--port", "0", "--replicaof", "127.0.0.1", str(port)]
    primary = [*redis, "--port", str(port), "--unixsocket", "SOCKET"]
    replicas = [[*redis, *follow, "--unixsocket", f"{folder}/replica{number}.sock"] for number in (1, 2)]
    recipe = Recipe("redis", [primary, *replicas], "resp", "resp")
    with Server(recipe, folder, None) as server:
        _until(lambda: _info(server.address).count("state=online") == len(replicas), "the replicas")
        yield Side(server.address, server.pids, RespWait)


@contextmanager
def _etcd(folder: Path) -> Iterator[Side]:
    """Three members; their logs are in memory where that can be, for disks are not what is compared."""
    where = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else folder
    with tempfile.TemporaryDirectory(prefix="turbopump-etcd-", dir=where) as data:
        sockets = {f"m{number}": f"m{number}:1" for number in (1, 2, 3)}  # it wants a port even there
        ports = iter(free_ports(2 * len(sockets), socket.SOCK_STREAM))
        peers = {name: f"http://127.0.0.1:{next(ports)}" for name in sockets}
        metrics = {name: f"http://127.0.0.1:{next(ports)}" for name in sockets}
        initial = ",".join(f"{name}={url}" for name, url in peers.items())
        common = ["--logger", "zap", "--log-level", "warn", "--initial-cluster", initial]
        commands = [
            [
                *("etcd", "--name", name, "--data-dir", f"{data}/{name}", *common),
                *("--listen-peer-urls", peers[name], "--initial-advertise-peer-urls", peers[name]),
                *("--listen-client-urls", f"unix://{name}:1", "--advertise-client-urls", f"unix://{name}:1"),
                *("--listen-metrics-urls", metrics[name]),
            ]
            for name in sockets
        ]
        recipe = Recipe("etcd", commands, "grpc", "grpc", sockets["m1"])
        with Server(recipe, folder, None) as server:
            leader = _until(
                lambda: next((name for name in metrics if _leads(metrics[name])), None), "a leader"
            )
            yield Side(str(folder / sockets[leader]), server.pids, Grpc)


def _leads(metrics: str) -> bool:
    """Whether a member of etcd says that it is the leader: who writes there saves a hop."""
    try:
        with urllib.request.urlopen(f"{metrics}/metrics", timeout=1) as answer:  # noqa: S310 - loopback
            return b"\netcd_server_is_leader 1\n" in answer.read()
    except (urllib.error.URLError, OSError):
        return False


def _info(path: str) -> str:
    """What a primary says of its replicas."""
    with closing(socket.socket(socket.AF_UNIX)) as redis:
        redis.settimeout(START_SECONDS)
        redis.connect(path)
        redis.sendall(b"INFO replication\r\n")
        return redis.recv(65536).decode()


def _until(holds: Callable[[], T | None], what: str) -> T:
    until = time.monotonic() + START_SECONDS
    while not (found := holds()):
        if time.monotonic() > until:
            raise RuntimeError(f"{START_SECONDS:g} s were not enough for {what}")
        time.sleep(LOOK_SECONDS)
    return found
