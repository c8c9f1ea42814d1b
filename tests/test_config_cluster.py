"""config/: the file of a cluster: what must hold between its parts, and what all nodes must agree on."""

# ruff: noqa: S104 - addresses to be bound by nobody here

import copy
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbopump.config import (
    Address,
    Config,
    Keyspace,
    PublicKey,
    Secrets,
    copies_of,
    engine_options,
    keepers,
    layout_digest,
    load,
    parse,
    resolve,
    resolved,
    rules,
)
from turbopump.errors import ConfigError


def key(number: int) -> str:
    """A public key; nobody has its private half."""
    return str(PublicKey(bytes([number]) * 32, bytes([number + 100]) * 32))


def file(count: int = 3, **fields: Any) -> dict[str, Any]:
    """The file of a cluster of a, b, c and so on."""
    members = [
        {"name": chr(97 + index), "address": f"10.0.0.{index + 1}", "public_key": key(index)}
        for index in range(count)
    ]
    return {"cluster": {}, "members": members} | fields


def changed(place: str, value: Any, document: dict[str, Any] | None = None) -> dict[str, Any]:
    """A file that differs in one place, such as `members.1.socket`; None takes it out."""
    document = copy.deepcopy(document or file())
    *above, last = (int(part) if part.isdigit() else part for part in place.split("."))
    inner: Any = document
    for part in above:
        inner = inner[part]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return document


def problems(document: dict[str, Any]) -> tuple[str, ...]:
    """What is wrong with a file."""
    with pytest.raises(ConfigError) as raised:
        parse(document)
    return raised.value.problems


def test_a_cluster_is_a_configuration() -> None:
    """Everything but names, addresses and keys has a default."""
    config = parse(file())

    assert [member.name for member in config.members] == ["a", "b", "c"]
    assert config.member("b").udp == Address("10.0.0.2", 1593)
    assert config.cluster is not None
    assert config.cluster.key_file("b") == Path("keys/b.key")


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("cluster", None, r"cluster: missing; there are 3 members: add \"cluster\": \{\}"),
        ("members.1.address", None, r"members\[1\]\.address: missing; add where the other members find b"),
        ("members.1.public_key", None, r"members\[1\]\.public_key: missing; add what `turbopump keygen`"),
        ("members.2.public_key", key(0), r"members\[2\]\.public_key: it is that of a: make another"),
        ("members.2.address", "10.0.0.1:1593", r"members\[2\]\.address = \"10.0.0.1:1593\": a has it too"),
        ("members.0.address", "127.0.0.1", r"members\[0\]\.address = .*only its own machine reaches that"),
        ("members.0.name", "b", r"the name 'b' stands here twice"),
        ("members.1.address", "10.0.0.1:5", r"members\[1\]\.socket = .*: a is on the same box and has it"),
        ("copies", 4, r"copies = 4: only 3 members have a weight.*write 3 or less"),
        (
            "keyspaces",
            [{"prefix": "a", "copies": 2}],
            r"keyspaces\[0\]\.copies = 2: a clone keeps its keys on",
        ),
        (
            "keyspaces",
            [{"prefix": "a", "placement": "partition", "copies": 4}],
            r"keyspaces\[0\]\.copies = 4: only 3",
        ),
        (
            "keyspaces",
            [{"prefix": "a" * 4096}],
            r"keyspaces\[0\]\.prefix: it has 4096 bytes.*no key would fit",
        ),
        (
            "keyspaces",
            [{"prefix": "a", "transport": "datagram"}],
            r'keyspaces\[0\]\.write_acks = "quorum": a datagram may be lost',
        ),
        ("keyspaces", [{"prefix": "a"}, {"prefix": "a"}], r"the prefix 'a' stands here twice"),
    ],
)
def test_what_does_not_fit_together_is_named(place: str, value: Any, problem: str) -> None:
    """In one line, with the place in the file and what to write instead."""
    [found] = problems(changed(place, value))

    assert re.search(problem, found)


def test_half_a_key_twice_is_enough() -> None:
    """A node is told from others by each half: by one in packets, by the other for good."""
    first, third = PublicKey.parse(key(0)), PublicKey.parse(key(2))
    for twin in (PublicKey(first.identity, third.transport), PublicKey(third.identity, first.transport)):
        [problem] = problems(changed("members.2.public_key", str(twin)))
        assert "it is that of a" in problem


def test_everything_is_found_at_once() -> None:
    """Each problem between the parts is a line of its own."""
    document = changed("members.2.public_key", key(0), changed("members.1.address", None))

    assert len(problems(document | {"copies": 9})) == 3


def test_nodes_on_one_machine_need_sockets_and_ports_of_their_own() -> None:
    """By whatever name they call it; port 0 is never taken."""
    document = file(2)
    for index, (member, host) in enumerate(zip(document["members"], ("localhost", "127.0.0.1"), strict=True)):
        member |= {"address": f"{host}:{index + 1}", "socket": "/tmp/s", "tcp": {"port": 7}}
    assert [problem.partition(":")[0] for problem in problems(document)] == [
        'members[1].socket = "/tmp/s"',
        "members[1].tcp.port = 7",
    ]
    for index, member in enumerate(document["members"]):
        member |= {"socket": f"/tmp/s{index}", "tcp": {"port": 0}}
    assert keepers(parse(document)) == 2


def test_somebody_must_keep_the_keys() -> None:
    """A weight of 0 keeps none; a clone is on all the others, but on no more than a layout takes."""
    document = file(17)
    [problem] = problems(document)
    assert problem.startswith("placement: a clone keeps every key on all 17 members")
    document["members"][16]["weight"] = 0
    assert keepers(parse(document)) == 16
    assert copies_of(parse(file(17, placement="partition")), Keyspace(prefix="")) == 3

    [problem] = problems({"members": [{"weight": 0}]})
    assert problem.startswith("members: none has a weight")


def test_copies_come_from_the_keyspace_or_the_file() -> None:
    """And are 3 where nobody says, or as many as there are members."""
    keyspaces = [
        {"prefix": "c/", "placement": "clone"},
        {"prefix": "p/", "copies": 1},
        {"prefix": "q/"},
    ]
    config = parse(file(placement="partition", copies=2, keyspaces=keyspaces))
    copies = {keyspace.prefix: copies_of(config, keyspace) for keyspace in rules(config)}
    assert copies == {"c/": 0, "p/": 1, "q/": 2, "": 2}

    assert copies_of(parse(file(2, placement="partition")), Keyspace(prefix="")) == 2
    assert copies_of(parse(file(5, placement="partition")), Keyspace(prefix="")) == 3
    assert copies_of(Config(), Keyspace(prefix="")) == 0
    own = [{"prefix": "", "writes": "immutable"}]
    assert [rule.writes for rule in rules(parse(file(keyspaces=own)))] == ["immutable"]


SAME = [
    ("members.0.address", "10.9.9.9"),
    ("members.0.socket", "/tmp/elsewhere"),
    ("members.0.max_memory", "1GiB"),
    ("limits", {"max_key": 100}),
    ("copies", 3),
    ("keyspaces", [{"prefix": "", "write_acks": "all", "ttl": 5}]),
    ("cluster", {"sync_seconds": 5}),
]
OTHER = [
    ("members.0.name", "z"),
    ("members.0.public_key", key(50)),
    ("members.0.weight", 2),
    ("members.0.zone", "east"),
    ("members.2", None),
    ("cluster", {"name": "another"}),
    ("placement", "partition"),
    ("keyspaces", [{"prefix": "x"}]),
    ("keyspaces", [{"prefix": "", "writes": "immutable"}]),
]


def test_peers_with_another_idea_of_the_cluster_are_told_apart() -> None:
    """By 16 bytes; what may differ from box to box, or changes nothing, is not in them."""
    base = layout_digest(parse(file()))
    document = file()
    document["members"].reverse()

    assert len(base) == 16
    assert layout_digest(parse(document)) == base
    for place, value in SAME:
        assert layout_digest(parse(changed(place, value))) == base, place
    others = {layout_digest(parse(changed(place, value))) for place, value in OTHER}
    assert len(others | {base}) == len(OTHER) + 1


def test_the_digest_is_what_it_was() -> None:
    """Another one would set all nodes of an older version apart."""
    assert layout_digest(parse(file())).hex() == "dc4163395debfc24016a2e65f85c74d1"


def test_paths_are_seen_from_the_file(tmp_path: Path) -> None:
    """Wherever the program was started; an absolute path is one."""
    path = tmp_path / "cluster.json"
    document = file(cluster={"secret": "/etc/secret", "key": "{name}/{name}.key"})
    path.write_text(json.dumps(document))
    cluster = load(path).cluster

    assert cluster is not None
    assert cluster.key_file("b") == tmp_path / "b" / "b.key"
    assert cluster.secret_file("b") == Path("/etc/secret")


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("10.0.0.1", Address("10.0.0.1"), "10.0.0.1:1593"),
        ("10.0.0.1:5", Address("10.0.0.1", 5), "10.0.0.1:5"),
        ("box1.example.org:65535", Address("box1.example.org", 65535), "box1.example.org:65535"),
        ("Box_1", Address("box_1"), "box_1:1593"),
        ("fd00::1", Address("fd00::1"), "[fd00::1]:1593"),
        ("[FD00::1]:7", Address("fd00::1", 7), "[fd00::1]:7"),
        ("[::1]", Address("::1"), "[::1]:1593"),
    ],
)
def test_an_address_is_read_and_written(text: str, address: Address, written: str) -> None:
    """IPv6 in brackets, the port after a colon."""
    assert Address.parse(text) == address
    assert str(address) == written
    assert Address.parse(written) == address


@given(st.text(max_size=20) | st.from_regex(r"\[?[0-9a-f.:]{1,20}\]?(:[0-9]{1,6})?", fullmatch=True))
def test_an_address_is_read_or_refused(text: str) -> None:
    """Whatever stands there; what was read comes back."""
    try:
        address = Address.parse(text)
    except ValueError as error:
        assert len(str(error)) > 10  # noqa: PT017 - either is right
    else:
        assert Address.parse(str(address)) == address


def test_a_name_is_resolved_or_named() -> None:
    """All that have no address are told at once; .invalid never has one (RFC 6761)."""
    assert resolve(Address("127.0.0.1", 5)) == "127.0.0.1:5"
    assert resolve(Address("::1", 5)) == "[::1]:5"
    assert resolve(Address("localhost", 5)) in {"127.0.0.1:5", "[::1]:5"}
    document = changed("members.0.address", "a.invalid", changed("members.2.address", "c.invalid"))
    with pytest.raises(ConfigError) as raised:
        resolved(parse(document))
    assert [problem.partition(" = ")[0] for problem in raised.value.problems] == [
        "members[0].address",
        "members[2].address",
    ]
    assert all("has no address here" in problem for problem in raised.value.problems)


SECRETS = Secrets("b", b"t" * 32, ((1, b"s" * 32), (0, b"r" * 32)), b"d" * 32)


def test_the_engine_gets_the_cluster() -> None:
    """Members in the order of their names, which is how it counts them; its own key, and what all share."""
    document = file(
        cluster={"sync_seconds": 0.5, "max_hints": "1MiB", "redirect": True, "congestion": "cubic"}
    )
    document["members"].reverse()
    document["members"][0] |= {"weight": 5, "zone": "east"}
    config = parse(document)
    options = engine_options(config, config.member("b"), SECRETS)["cluster"]

    assert isinstance(options, dict)
    members = options.pop("members")
    assert options == {
        "me": 1,
        "transport_key": b"t" * 32,
        "psks": ((1, b"s" * 32), (0, b"r" * 32)),
        "digest_key": b"d" * 32,
        "bind": "10.0.0.2:1593",
        "sync_ms": 500,
        "ack_timeout_ms": 2000,
        "peer_timeout_ms": 3500,
        "hints_max": 1 << 20,
        "message_max": 16384,
        "redirect": True,
        "congestion": "cubic",
        "awake_us": 100,
        "layout_digest": layout_digest(config),
    }
    assert [member["name"] for member in members] == ["a", "b", "c"]
    assert members[2] == {
        "name": "c",
        "address": "10.0.0.3:1593",
        "door": None,
        "public_key": bytes([102]) * 32,
        "identity": bytes([2]) * 32,
        "weight": 5,
        "zone": "east",
    }
    assert "t" * 32 not in repr(SECRETS)
    with pytest.raises(ConfigError, match="needs its keys"):
        engine_options(config, config.member("b"))


@pytest.mark.parametrize(
    ("address", "tcp", "expected", "told"),
    [
        ("10.0.0.1", None, ("10.0.0.1", 0), None),
        ("10.0.0.1", {"host": "10.9.9.9", "port": 5, "password": "p"}, ("10.9.9.9", 5), "10.9.9.9:5"),
        ("localhost", {"host": "0.0.0.0", "port": 5, "password": "p"}, ("localhost", 5), "localhost:5"),
        ("fd00::1", {"host": "::", "port": 5, "password": "p"}, ("fd00::1", 5), "fd00::1:5"),
        ("10.0.0.1", {"port": 5}, ("10.0.0.1", 0), None),
        ("127.0.0.1", {"port": 5}, ("127.0.0.1", 5), "127.0.0.1:5"),
        ("127.0.0.1", {"port": 0}, ("127.0.0.1", 0), None),
    ],
)
def test_where_redis_clients_find_a_member(
    address: str, tcp: dict[str, Any] | None, expected: tuple[str, int], told: str | None
) -> None:
    """At what it binds, or at its address; loopback is no place for others, unless all are there.

    The engine says in MOVED what CLUSTER SLOTS says.
    """
    document = {"cluster": {}, "members": [{"address": address, "public_key": key(0), "tcp": tcp}]}
    config = parse(document)
    options = engine_options(config, config.member(), SECRETS)["cluster"]

    assert isinstance(options, dict)
    assert config.member().door == expected
    assert [member["door"] for member in options["members"]] == [told]


@pytest.mark.parametrize(
    ("member", "bound"),
    [
        ({"address": "10.0.0.1:7"}, "10.0.0.1:7"),
        ({"address": "[fd00::1]:7"}, "[fd00::1]:7"),
        ({"address": "10.0.0.1:7", "bind": "192.168.1.1:8"}, "192.168.1.1:8"),
        ({"address": "10.0.0.1:7", "bind": "0.0.0.0"}, "0.0.0.0:1593"),
        ({"address": "box4:7"}, "0.0.0.0:7"),
        ({"address": "box6:7"}, "[::]:7"),
    ],
)
def test_what_is_bound(monkeypatch: pytest.MonkeyPatch, member: dict[str, Any], bound: str) -> None:
    """The address; all of the box's for a name, which a box may know as 127.0.1.1; or what the file says."""
    known = {"box4": "127.0.1.1", "box6": "fd00::9"}

    def look_up(host: str, port: int, **_options: Any) -> list[Any]:
        family = socket.AF_INET6 if ":" in known.get(host, host) else socket.AF_INET
        return [(family, socket.SOCK_DGRAM, 0, "", (known.get(host, host), port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    document = file(2)
    document["members"][0] |= member
    config = parse(document)
    options = engine_options(config, config.member("a"), SECRETS)["cluster"]

    assert isinstance(options, dict)
    assert options["bind"] == bound


def test_a_member_is_to_be_named_where_there_are_several() -> None:
    """Nobody is the first one by chance."""
    with pytest.raises(ConfigError, match="3 members: say which with --node: a, b, c"):
        parse(file()).member()
