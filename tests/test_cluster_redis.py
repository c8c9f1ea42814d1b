"""Redis's clients where nodes redirect: MOVED tells where a key is kept, over TCP and nowhere else."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from redis.cluster import ClusterNode, LoadBalancingStrategy, RedisCluster

from conftest import Serve
from test_cluster import NAMES, Trio, eventually
from turbopump import key_slot
from turbopump._native import Ring
from wire import Wire

COPIES = 2
REDIRECT = {"redirect": True, "sync_seconds": 0.2}
KEYS = [f"key{number}" for number in range(60)]


@pytest.fixture
def trio(folder: Path, serve: Serve) -> Trio:
    """Three members, each key on two of them; those who ask the third over TCP are sent away."""
    return Trio(folder, serve, placement="partition", copies=COPIES, cluster=REDIRECT)


def port_of(trio: Trio, name: str) -> int:
    """Where a member takes TCP clients."""
    return int(next(member["tcp"]["port"] for member in trio.members if member["name"] == name))


def wire_to(trio: Trio, name: str) -> Wire:
    """A raw client of a member, over TCP."""
    return Wire(("127.0.0.1", port_of(trio, name)))


def owners(key: str) -> list[str]:
    """Who keeps a key, the primary first."""
    return Ring(dict.fromkeys(NAMES, 1), copies=COPIES).owners(key.encode())


def strangers() -> Iterator[tuple[str, str]]:
    """Each key, with the member that does not keep it."""
    for key in KEYS:
        [stranger] = set(NAMES) - set(owners(key))
        yield key, stranger


def slots_of(trio: Trio, name: str) -> dict[int, tuple[str, int]]:
    """For each slot the address that CLUSTER SLOTS names first."""
    with redis.Redis(port=port_of(trio, name)) as client:
        told = cast("list[Any]", client.execute_command("CLUSTER", "SLOTS"))
    return {
        slot: (host.decode(), port)
        for first, last, (host, port, *_), *_ in told
        for slot in range(first, last + 1)
    }


def test_a_key_kept_elsewhere_is_answered_with_its_place(trio: Trio) -> None:
    """The one that CLUSTER SLOTS names; who goes there is served, and so is who asks the other keeper."""
    places = {name: slots_of(trio, name) for name in NAMES}
    assert places["a"] == places["b"] == places["c"]
    for key, stranger in strangers():
        slot, (primary, second) = key_slot(key), owners(key)
        moved = b"-MOVED %d 127.0.0.1:%d\r\n" % (slot, port_of(trio, primary))
        assert places["a"][slot] == ("127.0.0.1", port_of(trio, primary))
        with wire_to(trio, stranger) as wire:
            assert wire.ask("SET", key, "lost") == moved
            assert wire.ask("GET", key) == moved
            assert wire.ask("PING") == b"+PONG\r\n"
        with wire_to(trio, primary) as wire:
            assert wire.ask("GET", key) == b"$-1\r\n", "the refused write was done"
            assert wire.ask("SET", key, "kept") == b"+OK\r\n"
        with wire_to(trio, second) as wire:
            assert wire.ask("GET", key) == b"$4\r\nkept\r\n"


def test_who_is_gone_is_no_place_to_be_sent_to(trio: Trio) -> None:
    """Then it is the next one that keeps the key, and the first again when that is back."""
    key, stranger = next(strangers())
    slot, (primary, second) = key_slot(key), owners(key)
    to = {name: b"-MOVED %d 127.0.0.1:%d\r\n" % (slot, port_of(trio, name)) for name in (primary, second)}
    with wire_to(trio, second) as wire:
        assert wire.ask("SET", key, "kept") == b"+OK\r\n"
    trio.kill(primary)
    with wire_to(trio, stranger) as wire:
        eventually(lambda: wire.ask("GET", key) == to[second])
        assert slots_of(trio, stranger)[slot] == ("127.0.0.1", port_of(trio, second))
        with wire_to(trio, second) as other:
            assert other.ask("GET", key) == b"$4\r\nkept\r\n"
        trio.start(primary)
        eventually(lambda: wire.ask("GET", key) == to[primary])
    with wire_to(trio, primary) as wire:
        assert wire.ask("GET", key) == b"$4\r\nkept\r\n"


def test_words_of_moving_slots_change_nothing(trio: Trio) -> None:
    """ASKING: no slot is on its way. READONLY: all that keep a key serve it anyway, and nobody else does."""
    key, stranger = next(strangers())
    moved = b"-MOVED %d 127.0.0.1:%d\r\n" % (key_slot(key), port_of(trio, owners(key)[0]))
    with wire_to(trio, stranger) as wire, wire_to(trio, owners(key)[1]) as second:
        for word in ("ASKING", "READONLY", "READWRITE"):
            assert wire.ask(word) == b"+OK\r\n"
            assert wire.ask("GET", key) == moved
            assert second.ask(word) == b"+OK\r\n"
            assert second.ask("SET", key, word) == b"+OK\r\n"
            assert second.ask("GET", key) == b"$%d\r\n%b\r\n" % (len(word), word.encode())
        assert wire.ask("RESET") == b"+RESET\r\n"
        assert wire.ask("HELLO", "3")[:1] == b"%"
        assert wire.ask("GET", key) == moved


def test_keys_of_several_places_are_gathered(trio: Trio) -> None:
    """Which Redis refuses: no one place would be right. Keys of one place are redirected together."""
    with wire_to(trio, "a") as wire:
        pairs = [word for key in KEYS for word in (key, f"value of {key}")]
        assert wire.ask("MSET", *pairs) == b"+OK\r\n"
        reply = wire.ask("MGET", *KEYS)
        assert reply.count(b"value of ") == len(KEYS)
    key, stranger = next(strangers())
    with wire_to(trio, stranger) as wire:
        assert wire.ask("DEL", f"{{{key}}}1", f"{{{key}}}2").startswith(b"-MOVED %d " % key_slot(key))


def test_clients_of_the_unix_socket_are_forwarded(trio: Trio) -> None:
    """A port of another box is nothing to them; the pipe protocol has no word for it."""
    for key, stranger in strangers():
        with redis.Redis(unix_socket_path=trio.nodes[stranger].socket) as client:
            assert client.set(key, f"by {stranger}")
            assert client.get(key) == f"by {stranger}".encode()
    key, stranger = next(strangers())
    with wire_to(trio, stranger) as wire:
        found = wire.keep(frame=True).send(b"read|name=%b|\n" % key.encode()).framed()
        assert found.body == f"by {stranger}".encode()


def test_without_redirect_tcp_clients_are_forwarded(folder: Path, serve: Serve) -> None:
    """Which is the default."""
    trio = Trio(folder, serve, placement="partition", copies=COPIES)
    for key, stranger in strangers():
        with wire_to(trio, stranger) as wire:
            assert wire.ask("SET", key, stranger) == b"+OK\r\n"
            assert wire.ask("GET", key) == b"$1\r\n%b\r\n" % stranger.encode()


def test_a_keyspace_of_all_members_is_served_where_it_is_asked_for(folder: Path, serve: Serve) -> None:
    """Beside one that is partitioned, and redirects."""
    settings = [{"prefix": "everywhere/", "placement": "clone"}]
    trio = Trio(
        folder,
        serve,
        placement="partition",
        copies=COPIES,
        keyspaces=settings,
        cluster=REDIRECT,
    )
    with wire_to(trio, "a") as a:
        for key in KEYS:
            assert a.ask("SET", f"everywhere/{key}", "a") == b"+OK\r\n"
    for name in ("b", "c"):
        with wire_to(trio, name) as wire:
            eventually(partial(has_everything, wire))


def has_everything(wire: Wire) -> bool:
    """Whether a member serves what another one was told."""
    return all(wire.ask("GET", f"everywhere/{key}") == b"$1\r\na\r\n" for key in KEYS)


def test_redis_py_follows(trio: Trio) -> None:
    """By its map, when it asks a wrong member, from replicas, and when a member is gone."""
    start = [ClusterNode("127.0.0.1", port_of(trio, name)) for name in NAMES]  # type: ignore[no-untyped-call]
    with RedisCluster(
        startup_nodes=start, load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN
    ) as client:
        for key, stranger in strangers():
            wrong = client.get_node(host="127.0.0.1", port=port_of(trio, stranger))
            assert client.execute_command("SET", key, stranger, target_nodes=wrong)
            assert client.get(key) == stranger.encode()
            assert client.execute_command("GET", key, target_nodes=wrong) == stranger.encode()
        trio.kill("b")
        eventually(lambda: "peer_down" in trio.nodes["a"].text() and "peer_down" in trio.nodes["c"].text())
        for key, stranger in strangers():
            assert client.get(key) == stranger.encode()
