"""Three nodes in processes of their own: what one is told all know, whoever dies and comes back."""

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from redis.cluster import ClusterNode, RedisCluster

from conftest import Serve, Served, turn
from turbopump import Client, Node
from turbopump.config import load
from turbopump.errors import ConflictError, UnavailableError
from turbopump.transfer import CONGESTION

NAMES = ("a", "b", "c")
HERE = ("127.0.0.1",) * len(NAMES)
DEADLINE_SECONDS = 30.0


def free_ports(kind: socket.SocketKind) -> Iterator[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.socket(socket.AF_INET, kind) for _ in NAMES]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    yield from ports


def directory(folder: Path, config: dict[str, Any], hosts: Sequence[str] = HERE) -> Path:
    """What `turbopump init` makes, on ports that are free, and with these settings; its file."""
    file = folder / "dir" / "cluster.json"
    made = [sys.executable, "-m", "turbopump", "init", str(file.parent), "--nodes", "3"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    ports = zip(free_ports(socket.SOCK_DGRAM), free_ports(socket.SOCK_STREAM), strict=True)
    for member, host, (udp, tcp) in zip(document["members"], hosts, ports, strict=True):
        member["address"] = f"{host}:{udp}"
        member["tcp"] = {"port": tcp}
    document["cluster"] |= {"sync_seconds": 0.2}
    file.write_text(json.dumps(document | config), encoding="utf-8")
    return file


class Trio:
    """A cluster of three."""

    def __init__(self, folder: Path, serve: Serve, hosts: Sequence[str] = HERE, **config: object) -> None:
        self.file = directory(folder, config, hosts)
        self.members = json.loads(self.file.read_text(encoding="utf-8"))["members"]
        self._serve = serve
        self.nodes: dict[str, Served] = {}
        for name in NAMES:
            self.start(name)
        self.whole()

    def start(self, name: str) -> None:
        """Starts a node, which may take its time."""
        self.nodes[name] = self._serve(None, str(self.file), "--node", name)

    def whole(self) -> None:
        """Waits until all nodes know each other."""
        for node in self.nodes.values():
            eventually(partial(knows_all, node))

    def kill(self, name: str) -> None:
        """Ends a node in the middle of whatever it does."""
        self.nodes[name].signal(signal.SIGKILL)
        self.nodes[name].ended()
        del self.nodes[name]

    def client(self, name: str) -> Client:
        """A client of a node."""
        return Client(self.nodes[name].socket)


def status(node: Served) -> dict[str, Any]:
    """What a node says of itself, nothing as long as it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(DEADLINE_SECONDS)
            wire.connect(node.socket)
            wire.sendall(b"status||\n")
            answer = b"".join(iter(lambda: wire.recv(65536), b""))
    except (ConnectionError, FileNotFoundError):
        return {"peers": [], "keys": -1}
    told: dict[str, Any] = json.loads(answer)
    return told


def knows_all(node: Served) -> bool:
    """Whether both others answer it."""
    return [peer["state"] for peer in status(node)["peers"]].count("alive") >= len(NAMES) - 1


def same_keys(node: Served, other: Served) -> bool:
    """Whether two nodes have as many keys."""
    return bool(status(node)["keys"] == status(other)["keys"])


def eventually(holds: Callable[[], bool]) -> None:
    """Asks until it does, the deadline at most."""
    until = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < until, "it did not come true in time"


def test_what_one_node_is_told_all_nodes_know(folder: Path, serve: Serve) -> None:
    """In a clone, with the defaults of `turbopump init`."""
    trio = Trio(folder, serve)
    with trio.client("a") as a, trio.client("b") as b, trio.client("c") as c:
        a.put("greeting", b"hello")
        eventually(lambda: b.get("greeting") == b"hello" == c.get("greeting"))
        b.delete("greeting")
        eventually(lambda: a.get("greeting") is None and c.get("greeting") is None)
        large = random.Random(1).randbytes(3_000_000)
        c.put("large", large)
        eventually(lambda: a.get("large") == large == b.get("large"))
    for node in trio.nodes.values():
        assert node.stop() == 0


def test_a_partition_serves_every_key_from_every_node(folder: Path, serve: Serve) -> None:
    """Whoever keeps it; and Redis's cluster client finds the way by itself."""
    trio = Trio(folder, serve, placement="partition", copies=2)
    with trio.client("a") as a, trio.client("b") as b, trio.client("c") as c:
        clients = [a, b, c]
        for number in range(30):
            clients[number % 3].put(f"key{number}", str(number))
        for number in range(30):
            assert clients[(number + 1) % 3].get(f"key{number}") == str(number).encode()
    keys = [status(node)["keys"] for node in trio.nodes.values()]
    assert sum(keys) == 60
    assert max(keys) < 30
    start = [ClusterNode("127.0.0.1", trio.members[0]["tcp"]["port"])]  # type: ignore[no-untyped-call]
    with RedisCluster(startup_nodes=start) as cluster:
        assert len(cluster.get_nodes()) == 3
        cluster.set("tagged", "by redis-py")
        assert cluster.get("tagged") == b"by redis-py"
        assert [cluster.get(f"key{number}") for number in range(30)] == [
            b"%d" % number for number in range(30)
        ]
    with redis.Redis(unix_socket_path=trio.nodes["b"].socket) as plain:
        assert plain.mget([f"key{number}" for number in range(30)]) == [
            b"%d" % number for number in range(30)
        ]
        assert plain.delete(*[f"key{number}" for number in range(30)]) == 30


def test_what_a_quorum_has_survives_whoever_is_killed(folder: Path, serve: Serve) -> None:
    """One node at a time, while writes go on; each comes back empty and is healed before the next."""
    trio = Trio(folder, serve)
    chance, kept = random.Random(7), {}
    for round_ in range(4):
        victim = chance.choice(NAMES)
        others = [name for name in NAMES if name != victim]
        with trio.client(others[0]) as first, trio.client(others[1]) as second:
            for number in range(200):
                if number == 100:
                    trio.kill(victim)
                key, value = f"{round_}/{number}", f"{victim}{number}"
                try:
                    chance.choice([first, second]).put(key, value)
                except UnavailableError:
                    continue  # it was not acknowledged
                kept[key] = value.encode()
            trio.start(victim)
            trio.whole()
            healed = (trio.nodes[victim], trio.nodes[others[0]])
            eventually(partial(same_keys, *healed))
    assert len(kept) >= 600
    for name in NAMES:
        with trio.client(name) as client:
            lost = [key for key, value in kept.items() if client.get(key) != value]
            assert lost == []


def test_a_node_of_another_cluster_is_refused_in_one_line(folder: Path, serve: Serve) -> None:
    """The same keys, and other rules: the file differs."""
    trio = Trio(folder, serve)
    trio.kill("c")
    document = json.loads(trio.file.read_text(encoding="utf-8"))
    document["keyspaces"] = [{"prefix": "other/", "writes": "immutable"}]
    trio.file.write_text(json.dumps(document), encoding="utf-8")
    trio.start("c")
    eventually(lambda: "differs from this node's" in trio.nodes["a"].text())
    with trio.client("a") as client:
        client.put("still", "here")
        assert client.get("still") == b"here"


@pytest.mark.parametrize("level", ["quorum", "all"])
def test_a_write_that_too_few_have_says_how_many(folder: Path, serve: Serve, level: str) -> None:
    """And stays written."""
    trio = Trio(folder, serve, keyspaces=[{"prefix": "", "write_acks": level}])
    trio.kill("c")
    eventually(lambda: "peer_down" in trio.nodes["a"].text())
    with trio.client("a") as client:
        if level == "all":
            with pytest.raises(UnavailableError, match="written on 2 of 3 replicas, 3 were asked for"):
                client.put("key", "value")
        else:
            client.put("key", "value")
        assert client.get("key") == b"value"


@pytest.mark.parametrize("congestion", CONGESTION)
def test_who_sets_the_rate_between_nodes_is_chosen(folder: Path, serve: Serve, congestion: str) -> None:
    """For all of them; and what it is, a status says."""
    trio = Trio(folder, serve, cluster={"congestion": congestion})
    with trio.client("a") as a, trio.client("b") as b:
        a.put("key", bytes(1 << 20))
        eventually(lambda: b.get("key") == bytes(1 << 20))
    peers = [peer for peer in status(trio.nodes["a"])["peers"] if peer["state"] == "alive"]
    assert [peer["congestion"] for peer in peers] == [congestion] * 2


def test_an_immutable_value_is_confirmed_each_time_it_is_written(folder: Path, serve: Serve) -> None:
    """Who was told that too few have it, and tries again, is not told otherwise before it is so."""
    trio = Trio(folder, serve, keyspaces=[{"prefix": "", "writes": "immutable"}])
    trio.kill("b")
    trio.kill("c")
    eventually(lambda: trio.nodes["a"].text().count("peer_down") == 2)
    with trio.client("a") as client:
        for _ in range(2):
            with pytest.raises(UnavailableError, match="written on 1 of 3 replicas, 2 were asked for"):
                client.put("key", "value")
        trio.start("b")
        eventually(lambda: trio.nodes["a"].text().count("peer_up") == 3)
        version = client.put("key", "value")
        assert client.put("key", "value") == version
    with trio.client("b") as other:
        assert other.get("key") == b"value"


def test_a_write_is_done_once_by_whichever_nodes_it_is_sent_to(folder: Path, serve: Serve) -> None:
    """Also when the node that did it is gone."""
    trio = Trio(folder, serve)
    with trio.client("a") as a:
        first = a.put("key", "value", once="order 17")
        a.put("key", "later")
    trio.kill("a")
    with trio.client("b") as b, trio.client("c") as c:
        assert {b.put("key", "value", once="order 17"), c.put("key", "value", once="order 17")} == {first}
        assert b.get("key") == c.get("key") == b"later"
        deleted = b.delete("key", once="order 18")
        c.put("key", "again")
        assert c.delete("key", once="order 18") == deleted
        assert b.get("key") == b"again"


@pytest.fixture
def partition(folder: Path) -> Path:
    """The file of a cluster in which each key is on two of the three."""
    return directory(folder, {"placement": "partition", "copies": 2})


async def test_embedded_nodes_ask_each_other(partition: Path) -> None:
    """In one program, without sockets for clients: what one does not keep it gets from who does."""
    config = load(partition)
    async with Node(config, name="a") as a, Node(config, name="b") as b, Node(config, name="c") as c:
        nodes = [a, b, c]
        async with asyncio.timeout(DEADLINE_SECONDS):
            while any("alive" not in {peer["state"] for peer in peers(node)} for node in nodes):
                await turn()
            for number in range(20):
                await until_taken(nodes[number % 3].put, f"key{number}", f"value{number}")
            for number in range(20):
                for node in nodes:
                    assert await node.get(f"key{number}") == f"value{number}".encode()
            found = await a.read("key1")
            assert found is not None
            assert await b.put("key1", "new", if_version=found.version) != found.version
            with pytest.raises(ConflictError):
                await c.put("key1", "newer", if_version=found.version)
            waits = asyncio.ensure_future(c.wait("later", DEADLINE_SECONDS))
            await a.put("later", "now")
            assert await waits == (await b.read("later") or found).version
            assert await b.delete("later") is not None
            assert not await c.exists("later")


def peers(node: Node) -> list[dict[str, Any]]:
    """What a node knows of the others."""
    return cast("list[dict[str, Any]]", node.stats()["peers"])


async def until_taken(put: Callable[[str, str], Awaitable[str]], key: str, value: str) -> None:
    """Writes, as often as the nodes still look for each other."""
    while True:
        try:
            await put(key, value)
        except UnavailableError:
            await turn()
        else:
            return
