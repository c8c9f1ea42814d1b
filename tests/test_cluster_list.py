"""What there is, of the whole cluster: each key once, whichever node is asked and whoever is gone."""

from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from string import punctuation
from urllib.parse import quote_from_bytes

import pytest
import redis
from redis.cluster import ClusterNode, RedisCluster

from conftest import Serve
from test_cluster import NAMES, Trio, eventually, status
from turbopump import AsyncClient, Client
from turbopump.errors import UnavailableError
from wire import Wire, resident

COPIES = 2
REDIRECT = {"redirect": True, "sync_seconds": 0.2}
SAFE = "".join(set(punctuation) - set("|%="))  # what stands for itself in a list
KEYSPACES = [
    {"prefix": "", "write_acks": "all"},  # whoever keeps a key has it once it is written
    {"prefix": "everywhere/", "placement": "clone", "write_acks": "all"},
]
KEYS = sorted(
    [f"key{number}".encode() for number in range(400)]
    + [f"odd|%{number}\n\xff".encode() for number in range(20)]
    + [f"{{one slot}}{number}".encode() for number in range(300)]
    + [f"everywhere/{number}".encode() for number in range(100)]
)


@pytest.fixture
def trio(folder: Path, serve: Serve) -> Trio:
    """Three members, each key on two of them, or on all."""
    made = Trio(folder, serve, placement="partition", copies=COPIES, keyspaces=KEYSPACES)
    fill(made, KEYS)
    return made


def fill(trio: Trio, keys: list[bytes]) -> None:
    """Writes keys."""
    with trio.client("a") as client, client.pipeline() as pipe:
        for key in keys:
            pipe.put(key, b"")


def pages(trio: Trio, names: tuple[str, ...], request: str) -> Iterator[list[bytes]]:
    """The pages of a listing, each asked of the next of these nodes; raw, as with `nc`."""
    cursor = "0"
    for name in cycle(names):
        with Wire(trio.nodes[name].socket) as wire:
            lines = wire.send(request.replace("CURSOR", cursor).encode()).rest().splitlines()
        if not lines or not lines[-1].startswith(b"next|cursor="):
            yield lines
            return
        cursor = lines.pop().removeprefix(b"next|cursor=").decode()
        yield lines


@pytest.mark.parametrize("name", NAMES)
def test_every_node_lists_every_key_once(trio: Trio, name: str) -> None:
    """With the Python client, in pages of several sizes, and raw."""
    with trio.client(name) as client:
        for page in (1, 7, 1000):
            assert sorted(client.list(page=page)) == KEYS
        assert sorted(client.list("key1")) == [key for key in KEYS if key.startswith(b"key1")]
        assert list(client.list("nothing")) == []


def test_a_listing_goes_on_at_any_node(trio: Trio) -> None:
    """A cursor means the same everywhere, also in the middle of a slot; a page has at most its limit."""
    quoted = sorted(quote_from_bytes(key, SAFE).encode() for key in KEYS)
    for names in (("a",), NAMES, ("c", "b")):
        found = list(pages(trio, names, "list|limit=37 cursor=CURSOR|\n"))
        assert max(map(len, found)) == 37
        assert sorted(line for page in found for line in page) == quoted
    [everything] = pages(trio, ("b",), "list||\n")
    assert sorted(everything) == quoted
    [some] = pages(trio, ("c",), "list|prefix=everywhere/1|\n")
    assert sorted(some) == [line for line in quoted if line.startswith(b"everywhere/1")]


def test_a_local_list_is_of_the_node(trio: Trio) -> None:
    """As it was before there were others."""
    listed = [
        line for name in NAMES for [lines] in [pages(trio, (name,), "local_list||\n")] for line in lines
    ]
    everywhere = sum(key.startswith(b"everywhere/") for key in KEYS)
    assert len(listed) == COPIES * (len(KEYS) - everywhere) + len(NAMES) * everywhere
    assert {line.partition(b")")[0][1:] for line in listed} == {
        quote_from_bytes(key, SAFE).encode() for key in KEYS
    }


async def test_an_asyncio_client_lists_the_cluster(trio: Trio) -> None:
    """In pages, too."""
    async with AsyncClient(trio.nodes["b"].socket) as client:
        assert sorted([key async for key in client.list(page=100)]) == KEYS
        assert sorted([key async for key in client.list(b"odd|%1")]) == [
            key for key in KEYS if key.startswith(b"odd|%1")
        ]


@pytest.mark.parametrize("victim", ["b", "c"])
def test_who_is_killed_in_the_middle_takes_no_key_along(trio: Trio, victim: str) -> None:
    """Its part is told by the other replicas; and lists that begin later miss nothing either."""
    with trio.client("a") as client:
        walk = client.list(page=25)
        found = [next(walk) for _ in range(100)]
        trio.kill(victim)
        found += walk
        assert sorted(found) == KEYS
        assert sorted(client.list()) == KEYS


def test_keys_that_nobody_answers_for_are_not_passed_over(trio: Trio) -> None:
    """The list is refused, and says who would have to come back; what one node keeps it still tells."""
    for victim in ("b", "c"):
        trio.kill(victim)
        eventually(partial(is_gone, trio, victim))
    with trio.client("a") as client, pytest.raises(UnavailableError, match=r"\(b, c\)"):
        list(client.list())
    with Wire(trio.nodes["a"].socket) as wire:
        assert wire.send(b"list||\n").rest().startswith(b"error|code=unavailable|")
    [lines] = pages(trio, ("a",), "local_list||\n")
    assert 0 < len(lines) < len(KEYS)
    left = sorted(line.partition(b")")[0][1:] for line in lines)
    trio.start("b")
    with trio.client("a") as client:
        eventually(lambda: [quote_from_bytes(key, SAFE).encode() for key in lists(client)] == left)


def is_gone(trio: Trio, name: str) -> bool:
    """Whether node a has found out that another one is gone."""
    return f"peer={name}" in "".join(
        line for line in trio.nodes["a"].text().splitlines() if "peer_down" in line
    )


def lists(client: Client) -> list[bytes]:
    """All keys, as they are written; none while it is refused."""
    try:
        return sorted(client.list(), key=lambda key: quote_from_bytes(key, SAFE))
    except UnavailableError:
        return []


def test_no_node_gathers_all_keys(folder: Path, serve: Serve) -> None:
    """Of a list of a hundred thousand, a part at a time is on its way, however slowly its client reads."""
    trio = Trio(folder, serve, placement="partition", copies=COPIES)
    keys = [b"%0200d" % number for number in range(100_000)]
    with redis.Redis(unix_socket_path=trio.nodes["b"].socket) as client:
        for start in range(0, len(keys), 10_000):
            client.mset(dict.fromkeys(keys[start : start + 10_000], b""))
    pid = trio.nodes["a"].process.pid
    before, most, found = resident(pid), 0, 0
    with Wire(trio.nodes["a"].socket) as wire:
        wire.send(b"list||\n")
        while chunk := wire.socket.recv(1 << 20):
            found += chunk.count(b"\n")
            most = max(most, resident(pid))
    assert found == len(keys)
    assert most - before < 10_000_000


def test_redis_clients_see_the_whole_cluster(trio: Trio) -> None:
    """A plain one is told by any node of all keys; what it flushes is gone everywhere."""
    for name in NAMES:
        with redis.Redis(unix_socket_path=trio.nodes[name].socket) as client:
            assert client.dbsize() == len(KEYS)
            assert sorted(client.scan_iter()) == KEYS
            assert sorted(client.scan_iter(match="key1*", count=7)) == sorted(client.keys("key1*"))
            assert len(client.keys("everywhere/*")) == 100
    with redis.Redis(unix_socket_path=trio.nodes["c"].socket) as client:
        assert client.flushdb() is True
    assert [status(node)["keys"] for node in trio.nodes.values()] == [0, 0, 0]


def test_nothing_is_flushed_while_a_node_is_away(trio: Trio) -> None:
    """What it keeps would come back."""
    trio.kill("b")
    eventually(partial(is_gone, trio, "b"))
    with redis.Redis(unix_socket_path=trio.nodes["a"].socket) as client:
        with pytest.raises(redis.ResponseError, match="only b may keep"):
            client.flushdb()
        assert client.dbsize() == len(KEYS)


def test_a_cluster_client_asks_each_node_for_its_own(folder: Path, serve: Serve) -> None:
    """One that follows redirects sums up what all nodes say: each key is told once."""
    trio = Trio(folder, serve, placement="partition", copies=COPIES, keyspaces=KEYSPACES, cluster=REDIRECT)
    fill(trio, KEYS)
    start = [ClusterNode("127.0.0.1", trio.members[0]["tcp"]["port"])]  # type: ignore[no-untyped-call]
    with RedisCluster(startup_nodes=start) as client:
        assert len(client.get_primaries()) == len(NAMES)
        assert client.dbsize(target_nodes=RedisCluster.PRIMARIES) == len(KEYS)
        assert sorted(client.scan_iter(target_nodes=RedisCluster.PRIMARIES)) == KEYS
        assert sorted(client.keys("key1*", target_nodes=RedisCluster.PRIMARIES)) == [
            key for key in KEYS if key.startswith(b"key1")
        ]
