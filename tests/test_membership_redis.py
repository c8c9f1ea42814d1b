"""membership/redis.py: CLUSTER as Redis Cluster's clients read it, redis-py's own parsers first."""

from itertools import chain
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import MagicMock

import pytest
from redis import cluster as redis_cluster
from redis._parsers import helpers

from test_membership import Observed, cluster, membership
from turbopump import key_slot
from turbopump._native import Engine
from turbopump.config import Config, engine_options, parse
from turbopump.errors import TurbopumpError
from turbopump.membership import Topology
from turbopump.membership.redis import CURSOR_SLOT_BITS, RedisCluster
from turbopump.membership.topology import SLOTS, node_id

if TYPE_CHECKING:
    from collections.abc import Callable

parse_slots = cast("Callable[[Any], dict[tuple[int, int], Any]]", redis_cluster.parse_cluster_slots)
parse_shards = cast("Callable[[Any], list[dict[str, Any]]]", redis_cluster.parse_cluster_shards_unified)
parse_nodes = cast("Callable[[Any], dict[str, dict[str, Any]]]", helpers.parse_cluster_nodes)
parse_info = cast("Callable[[Any], dict[str, str]]", helpers.parse_cluster_info)


def wired(reply: Any, protocol: int) -> Any:
    """A reply as it is when it has been over the wire."""
    if isinstance(reply, str):
        return reply.encode()
    if isinstance(reply, list):
        return [wired(item, protocol) for item in reply]
    if isinstance(reply, dict):
        pairs = [(wired(name, protocol), wired(value, protocol)) for name, value in reply.items()]
        return dict(pairs) if protocol == 3 else [part for pair in pairs for part in pair]
    return reply


async def ask(config: Config, *words: str, engine: Observed | None = None, name: str = "a") -> Any:
    """What a node answers to CLUSTER and these words."""
    return await membership(config, name, engine).cluster([word.encode() for word in words])


async def test_slots_cover_the_circle() -> None:
    """Each range has who to write to first, then others that have it too; all with TCP."""
    config = cluster(4, placement="partition", copies=2)
    table = Topology(config).table
    found = parse_slots(wired(await ask(config, "SLOTS"), 2))

    ports = {"a": 1000, "b": 1001, "c": 1002}
    heads = list(found.items())[: len(ports)]
    assert {who["primary"][1] for _, who in heads} == set(ports.values())
    seen = 0
    for (first, last), who in sorted(found.items(), key=lambda item: item[0]):
        assert first == seen
        reachable = [ports[name] for name in table[first] if name in ports]
        named = [port for _, port in [who["primary"], *who["replicas"]]]
        assert named == (reachable[:1] if ((first, last), who) in heads else reachable)
        assert who["primary"][0] == "127.0.0.1"
        seen = last + 1
    assert seen == SLOTS


async def test_redis_py_takes_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client for clusters finds every slot, with replicas to read from."""
    reply = wired(await ask(cluster(placement="partition", copies=2), "slots"), 2)
    connection = MagicMock()
    connection.execute_command.return_value = reply
    manager: Any = redis_cluster.NodesManager
    monkeypatch.setattr(manager, "create_redis_node", lambda *_args, **_options: connection)
    monkeypatch.setattr(manager, "create_redis_connections", lambda *_args: None)
    start: Any = redis_cluster.ClusterNode
    nodes = manager([start("127.0.0.1", 1000)])

    assert len(nodes.slots_cache) == SLOTS
    assert {node.port for node in nodes.nodes_cache.values()} == {1000, 1001}


@pytest.mark.parametrize("state", ["down", "connecting"])
async def test_a_member_that_is_away_gives_way(state: str) -> None:
    """Every replica takes writes, so the next one is asked; the map is made again when it is back.

    Who is away is looked for all the time, and is connecting meanwhile.
    """
    config = cluster(placement="partition", copies=2)
    engine = Observed([{"name": "b", "state": state}])
    found = membership(config, "a", engine)
    before = parse_slots(wired(await found.cluster([b"slots"]), 2))
    assert all(who["primary"][1] != 1001 for who in before.values())
    assert await found.cluster([b"slots"]) is await found.cluster([b"SLOTS"])

    engine.peers = [{"name": "b", "state": "alive"}]
    after = parse_slots(wired(await found.cluster([b"slots"]), 2))
    assert any(who["primary"][1] == 1001 for who in after.values())


async def test_slots_of_members_without_tcp_lead_to_others() -> None:
    """Which ask them; and if no member has it, that is said."""
    config = cluster(placement="partition", copies=1)
    found = parse_slots(wired(await ask(config, "slots"), 2))
    assert {who["primary"][1] for who in found.values()} == {1000, 1001}

    with pytest.raises(TurbopumpError, match=r'no member listens on TCP.*add "tcp"'):
        await ask(cluster(1), "slots")


@pytest.mark.parametrize("protocol", [2, 3])
async def test_shards_have_every_member(protocol: int) -> None:
    """Slots in pairs, nodes with id, role and health; who cannot be reached has no port."""
    config = cluster(placement="partition", copies=2)
    engine = Observed([{"name": "b", "state": "down"}])
    shards = parse_shards(wired(await ask(config, "SHARDS", engine=engine), protocol))

    flat = list(chain.from_iterable(shard["slots"] for shard in shards))
    pairs = list(zip(flat[::2], flat[1::2], strict=True)) if protocol == 3 else flat
    assert sum(last - first + 1 for first, last in pairs) == SLOTS
    ids = {node_id(member).encode(): member.name for member in config.members}
    for shard in shards:
        roles = [node["role"] for node in shard["nodes"]]
        assert sorted(roles) == [b"master", b"replica"]
        for node in shard["nodes"]:
            name = ids[node["id"]]
            assert node["health"] == (b"failed" if name == "b" else b"online")
            assert node.get("port") == {"a": 1000, "b": 1001}.get(name)
            assert name != "b" or node["role"] == b"replica"


async def test_nodes_are_lines() -> None:
    """One for each member, one of them this node; together they have all slots."""
    config = cluster(placement="partition", copies=2)
    engine = Observed([{"name": "b", "state": "down"}, {"name": "c", "state": "connecting"}])
    text = await ask(config, "NODES", engine=engine)
    found = parse_nodes(text)

    assert list(found) == ["127.0.0.1:1000", "127.0.0.1:1001", "127.0.0.1:0"]
    first, second, third = found.values()
    assert first["node_id"] == await ask(config, "MYID") == node_id(config.member("a"))
    assert [node["flags"] for node in found.values()] == [
        "myself,master",
        "master,fail",
        "master,fail,noaddr",
    ]
    assert (first["connected"], second["connected"], third["connected"]) == (True, False, False)
    slots = [slot for node in found.values() for slot in node["slots"]]
    assert sum(int(slot[-1]) - int(slot[0]) + 1 for slot in slots) == SLOTS
    assert "@1593 " in text


async def test_info_says_whether_all_slots_have_somebody() -> None:
    """With two copies one member may be away, with one it may not."""
    engine = Observed([{"name": "b", "state": "down", "bytes_sent": 7}])
    fine = parse_info(await ask(cluster(placement="partition", copies=2), "INFO", engine=engine))
    assert (fine["cluster_state"], fine["cluster_slots_ok"], fine["cluster_known_nodes"]) == (
        "ok",
        "16384",
        "3",
    )
    assert fine["cluster_stats_bytes_sent"] == "7"

    broken = parse_info(await ask(cluster(placement="partition", copies=1), "INFO", engine=engine))
    assert broken["cluster_state"] == "fail"
    assert int(broken["cluster_slots_fail"]) == SLOTS - int(broken["cluster_slots_ok"]) > 5000


async def test_a_node_alone_is_no_cluster() -> None:
    """Clients that ask whether it is one are told in Redis's words; a slot can be computed anywhere."""
    alone = parse({"members": [{"tcp": {}}]})
    for word in ("SLOTS", "SHARDS", "NODES", "INFO", "MYID", "MYSHARDID"):
        with pytest.raises(TurbopumpError, match="This instance has cluster support disabled"):
            await ask(alone, word, name="node")
    assert await ask(alone, "KEYSLOT", "{a}b", name="node") == key_slot("a")


async def test_own_names() -> None:
    """40 digits each; the shard's is that of a shard in which this node is the first."""
    config = cluster(placement="partition", copies=2)
    ids = {await ask(config, word, name=name) for name in "abc" for word in ("MYID", "MYSHARDID")}

    assert len(ids) == 6
    assert {len(found) for found in ids} == {40}
    assert all("CLUSTER" in line for line in await ask(config, "HELP"))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("",),
        ("MEET", "127.0.0.1", "7000"),
        ("KEYSLOT",),
        ("SLOTS", "1"),
        ("COUNTKEYSINSLOT",),
        ("COUNTKEYSINSLOT", "16384"),
        ("COUNTKEYSINSLOT", "-1"),
        ("COUNTKEYSINSLOT", "x"),
        ("COUNTKEYSINSLOT", "²"),
        ("GETKEYSINSLOT", "0", "10001"),
        ("GETKEYSINSLOT", "0"),
    ],
)
async def test_what_is_wrong_is_refused(words: tuple[str, ...]) -> None:
    """As a mistake of the client's."""
    with pytest.raises(TurbopumpError) as raised:
        await ask(cluster(), *words)
    assert raised.value.code == "syntax"


def test_keys_of_a_slot_are_counted() -> None:
    """Where an engine keeps them, and no others; the cursor is as it is believed to be."""
    config = parse({})
    engine = Engine(engine_options(config, config.member()))
    keys = [f"{{tag}}{number}".encode() for number in range(2500)]
    for key in [*keys, *(f"{number}".encode() for number in range(5000))]:
        engine.put(key, b"")
    redis = RedisCluster(Topology(config), config.member(), list, engine)
    slot = key_slot("tag")
    others = sum(key_slot(str(number)) == slot for number in range(5000))

    assert redis.answer([b"COUNTKEYSINSLOT", str(slot).encode()]) == 2500 + others
    some = cast("list[bytes]", redis.answer([b"getkeysinslot", str(slot).encode(), b"10"]))
    assert len(some) == 10
    assert all(key_slot(key) == slot for key in some)
    total = sum(cast("int", redis.answer([b"countkeysinslot", str(n).encode()])) for n in range(SLOTS))
    assert total == 7500
    cursor, found = engine.scan(slot << CURSOR_SLOT_BITS, 1)
    assert key_slot(found[0][0]) == slot
    assert cursor >> CURSOR_SLOT_BITS >= slot
