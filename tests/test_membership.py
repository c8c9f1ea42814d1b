"""membership/: who is in the cluster, who keeps what, how the others are, and how that is shown."""

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turbopump import Ring, key_slot
from turbopump.config import Config, PublicKey, layout_digest, parse
from turbopump.errors import TurbopumpError
from turbopump.membership import (
    Membership,
    Topology,
    drawn_ring,
    peers_table,
    ring_report,
    ring_table,
    rounds,
    were_compared,
)
from turbopump.membership.circle import SVG, ring_picture
from turbopump.membership.topology import SLOTS, node_id, ranges, shard_id

PEER = {
    "name": "b",
    "state": "alive",
    "rtt_us": 250,
    "loss": 0.0125,
    "bytes_sent": 5_000_000,
    "bytes_received": 100,
    "last_equal_ms": 1500,
    "keys_found": 20,
    "digest_bytes": 4000,
    "rounds": 7,
    "hints": 0,
}


def cluster(count: int = 3, **fields: Any) -> Config:
    """A cluster of a, b, c and so on, on one box; all but the last listen on TCP."""
    members = [
        {
            "name": chr(97 + index),
            "address": f"127.0.0.1:{1593 + index}",
            "public_key": str(PublicKey(bytes([index]) * 32, bytes([index + 100]) * 32)),
            "socket": f"/tmp/{index}",
        }
        | ({"tcp": {"port": 1000 + index}} if index < count - 1 else {})
        for index in range(count)
    ]
    return parse({"cluster": {}, "members": members} | fields)


class Observed:
    """An engine that says what a test wants of the peers.

    Attributes:
        peers: What it says; None for an engine that says nothing.
    """

    def __init__(self, peers: list[dict[str, Any]] | None = None) -> None:
        self.peers = peers

    def stats(self) -> dict[str, object]:
        """Nothing but the peers."""
        return {} if self.peers is None else {"peers": self.peers}

    def scan(self, cursor: int, limit: int, prefix: bytes = b"") -> tuple[int, list[tuple[bytes, int]]]:
        """No keys."""
        assert (cursor, limit) >= (0, 0)
        assert prefix == b""
        return 0, []


def membership(config: Config, name: str = "a", engine: Observed | None = None) -> Membership:
    """As the member with this name sees it."""
    return Membership(
        config,
        config.member(name),
        engine or Observed(),
        addresses=lambda: ["/tmp/here", "tcp://127.0.0.1:1000"],
        sync=None,
    )


async def run(found: Membership, name: str, *args: bytes) -> Any:
    """Runs a cold command."""
    return await found.table()[name](list(args))


async def test_the_words_of_the_first_turbopump() -> None:
    """A node alone is its own cluster."""
    alone = membership(parse({"members": [{"name": "alpha"}]}), "alpha")

    assert await run(alone, "membership") == "alpha alive /tmp/here tcp://127.0.0.1:1000"
    assert await run(alone, "ring") == "0-16383 alpha"
    assert alone.status() == {}
    with pytest.raises(TurbopumpError, match="nobody to compare with"):
        await run(alone, "sync")


async def test_the_members_of_a_cluster_are_lines() -> None:
    """Each with what is known of it, and where peers and Redis clients find it."""
    found = membership(cluster(), "b", Observed([PEER | {"name": "a"}, {"name": "c", "state": "down"}]))

    assert str(await run(found, "membership")).splitlines() == [
        "a alive udp://127.0.0.1:1593 tcp://127.0.0.1:1000",
        "b alive /tmp/here tcp://127.0.0.1:1000",
        "c down udp://127.0.0.1:1595",
    ]
    assert "a unknown udp" in str(await run(membership(cluster(), "b"), "membership"))


async def test_the_ring_is_told_by_ranges() -> None:
    """In a clone it is one; in a partition each says who keeps it, and together they are all slots."""
    assert await run(membership(cluster()), "ring") == "0-16383 a b c"

    config = cluster(placement="partition", copies=2)
    ring = Ring(["a", "b", "c"], copies=2)
    seen = 0
    for line in str(await run(membership(config), "ring")).splitlines():
        slots, *owners = line.split()
        first, last = map(int, slots.split("-"))
        assert first == seen
        assert ring.owners_of_slot(first) == ring.owners_of_slot(last) == owners
        seen = last + 1
    assert seen == SLOTS


async def test_sync_is_for_whoever_does_not_want_to_wait() -> None:
    """It says with how many it compares: not with those that are down."""
    started = []
    config = cluster()
    engine = Observed([PEER, {"name": "c", "state": "down"}])
    found = Membership(config, config.member("a"), engine, addresses=list, sync=lambda: started.append(True))

    assert await run(found, "sync") == "comparing with 1 of 2 peers"
    assert started == [True]
    with pytest.raises(TurbopumpError, match="by itself only"):
        await run(membership(config), "sync")


def test_a_status_has_the_file_s_words_and_the_engine_s_figures() -> None:
    """Of every member; of one that the engine does not mention only the file's."""
    config = cluster()
    status = membership(config, "a", Observed([PEER])).status()

    assert status["cluster"] == {"name": "turbopump", "layout": layout_digest(config).hex()}
    assert [peer["state"] for peer in status["peers"]] == ["self", "alive", "unknown"]
    assert status["peers"][1] == PEER | {"address": "127.0.0.1:1594", "zone": "", "weight": 1}
    assert set(status["peers"][2]) == {"name", "state", "address", "zone", "weight"}
    json.dumps(status)


def test_the_peers_are_a_table() -> None:
    """Only columns in which something stands; figures as people read them."""
    status = membership(cluster(), "a", Observed([PEER])).status()
    title, first, second, third = peers_table(status["peers"]).splitlines()

    assert (
        title == "peer  state        rtt      equal  found  digests  rounds  hints     sent  received   loss"
    )
    assert first.split() == ["a", "self"]
    assert second.split("  ")[0] == "b"
    for shown in ("0.25 ms", "1.5 s ago", "20", "3.9 KiB", "4.8 MiB", "100 B", "1.25%"):
        assert shown in second
    assert third.split() == ["c", "unknown"]
    assert peers_table([{"name": "b", "state": "down"}]).splitlines() == ["peer  state", "b     down"]


def test_a_comparison_has_ended_with_each_peer_that_answers() -> None:
    """A peer that has gone meanwhile is not waited for."""
    before = rounds({"peers": [PEER, PEER | {"name": "c", "rounds": 3}, {"name": "d", "state": "down"}]})
    assert before == {"b": 7, "c": 3}

    later = PEER | {"rounds": 8}
    assert not were_compared(before, {"peers": [later, PEER | {"name": "c", "rounds": 3}]})
    assert were_compared(before, {"peers": [later, {"name": "c", "state": "down", "rounds": 3}]})
    assert were_compared({}, {})


def test_each_keyspace_has_the_ring_of_its_copies() -> None:
    """The longest prefix decides; rings are computed once for a number of copies."""
    keyspaces = [
        {"prefix": "x", "placement": "partition", "copies": 1},
        {"prefix": "xy", "placement": "partition", "copies": 2},
        {"prefix": "z", "placement": "partition", "copies": 2},
    ]
    topology = Topology(cluster(keyspaces=keyspaces))

    assert [len(topology.owners(key)) for key in (b"x1", b"xy1", b"z1", b"a")] == [1, 2, 2, 3]
    assert topology.ring(topology.keyspace(b"xy")) is topology.ring(topology.keyspace(b"z"))
    assert topology.owners(b"xy{tag}") == Ring("abc", copies=2).owners("xy{tag}")


def test_a_member_without_weight_keeps_nothing() -> None:
    """In a clone neither."""
    config = cluster()
    members = [member.model_copy(update={"weight": int(member.name != "b")}) for member in config.members]
    topology = Topology(config.model_copy(update={"members": tuple(members)}))

    assert {name for names in topology.table for name in names} == {"a", "c"}
    assert {name for names in topology.shown for name in names} == {"a", "c"}


def test_a_clone_is_shown_in_few_ranges() -> None:
    """For any member is right: clients that fetch a map get a short one, and share themselves out."""
    shown = Topology(cluster()).shown

    assert [last - first + 1 for first, last in ranges(shown)] == [5462, 5461, 5461]
    assert all(sorted(names) == ["a", "b", "c"] for names in shown)
    assert [shown[first][0] for first, _ in ranges(shown)] == ["a", "b", "c"]


@given(st.lists(st.integers(0, 3), max_size=30))
def test_ranges_are_what_they_are_made_of(values: list[int]) -> None:
    """Each of equal values, together all, and none could be longer."""
    found = list(ranges(values))

    assert [value for first, last in found for value in [values[first]] * (last - first + 1)] == values
    assert all(values[first] != values[first - 1] for first, _ in found[1:])


def test_ids_are_of_the_key() -> None:
    """40 hexadecimal digits, as Redis has them; another name or address changes nothing."""
    member = cluster().member("b")

    assert len(node_id(member)) == 40
    assert int(node_id(member), 16) >= 0
    moved = member.model_copy(update={"name": "z", "address": "127.0.0.1:9"})
    assert node_id(moved) == node_id(member) != node_id(cluster().member("a"))
    assert len({shard_id(["a", "b"]), shard_id(["b", "a"]), shard_id(["ab"])}) == 3


ZONES = ("east", "west", "")


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ZONES), st.integers(1, 3)), min_size=2, max_size=8))
def test_a_report_tells_what_the_ring_tells(found: list[tuple[str, int]]) -> None:
    """Slots, primaries, how even they are, and what is lost with a zone."""
    config = cluster(len(found), placement="partition", copies=2)
    members = [
        member.model_copy(update={"zone": zone, "weight": weight})
        for member, (zone, weight) in zip(config.members, found, strict=True)
    ]
    topology = Topology(config.model_copy(update={"members": tuple(members)}))
    report = ring_report(topology, "key")

    assert {m["name"]: (m["slots"], m["primaries"]) for m in report["members"]} == topology.ring(
        topology.main
    ).loads()
    assert sum(member["primaries"] for member in report["members"]) == SLOTS
    assert sum(member["share"] for member in report["members"]) == pytest.approx(1)
    assert report["max_over_mean"] >= 0.999
    assert report["key"] == {"slot": key_slot("key"), "owners": topology.owners(b"key")}
    zones = report["zones"]
    assert set(zones) == {zone for zone, _ in found}
    assert all(1 <= zone["copies_at_most"] <= 2 for zone in zones.values())
    assert sum(zone["slots"] for zone in zones.values()) <= 2 * SLOTS
    text = ring_table(report)
    assert all(f"{member['slots']:,}" in text for member in report["members"])
    json.dumps(report)


def test_a_report_is_read_by_people() -> None:
    """What it is of, a line for each member, how even it is, and the key that was asked for."""
    keyspaces = [{"prefix": "x/", "placement": "partition", "copies": 1}]
    topology = Topology(cluster(keyspaces=keyspaces))

    assert ring_table(ring_report(topology)).splitlines() == [
        "clone: every member keeps every key; 16,384 slots",
        "",
        "member  zone  weight   slots  primary  share",
        "a       -          1  16,384    5,462  33.3%",
        "b       -          1  16,384    5,461  33.3%",
        "c       -          1  16,384    5,461  33.3%",
        "",
        "most loaded beside its due: 1.0000",
    ]
    text = ring_table(ring_report(topology, "x/1"))
    assert text.startswith("partition (keys that begin with x/): one member keeps each key; 16,384 slots")
    assert f"the key is in slot {key_slot('x/1')}, kept by {topology.owners(b'x/1')[0]}" in text


def drawing(count: int, **fields: Any) -> ET.Element:
    """The picture of a cluster, with a key pointed at."""
    topology = Topology(cluster(count, **fields))
    return ET.fromstring(drawn_ring(topology, ring_report(topology, "key"), "key"))  # noqa: S314 - ours


@pytest.mark.parametrize(("count", "fields"), [(1, {}), (3, {}), (5, {"placement": "partition"})])
def test_the_ring_is_drawn(count: int, fields: dict[str, Any]) -> None:
    """A band for each copy, a colour for each member, its name in the legend, and the key's slot."""
    picture = drawing(count, **fields)
    paths = list(picture.iter(f"{{{SVG}}}path"))
    texts = [text.text or "" for text in picture.iter(f"{{{SVG}}}text")]

    assert len({path.get("fill") for path in paths}) == count
    assert len(paths) == min(count, 3) * count
    assert {chr(97 + index) for index in range(count)} <= {text.strip() for text in texts}
    assert f"slot {key_slot('key')}" in texts


def test_a_large_ring_is_drawn_too() -> None:
    """In a legend of bounded length, with names that are no markup; and what is no ring is refused."""
    members = [(f"<{index}>", "1%") for index in range(40)]
    document = ring_picture([[members[slot * 40 // SLOTS][0]] for slot in range(SLOTS)], members, "a & b")
    picture = ET.fromstring(document)  # noqa: S314 - ours
    texts = [text.text for text in picture.iter(f"{{{SVG}}}text")]

    assert {"a & b", "<0> ", "and 16 more"} <= set(texts)
    assert len({path.get("fill") for path in picture.iter(f"{{{SVG}}}path")}) == 40
    with pytest.raises(ValueError, match="16384 slots"):
        ring_picture([["a"]], members, "")
