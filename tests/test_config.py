"""config.py: what a file may say, and every field of it wrong in turn."""

# ruff: noqa: S104 - addresses that are to be refused, never bound

import json
import math
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbopump._native import Engine
from turbopump.config import (
    Callback,
    Cluster,
    Config,
    Guests,
    Keyspace,
    Limits,
    Log,
    Member,
    Section,
    Tcp,
    engine_options,
    is_loopback,
    load,
    parse,
    parse_mode,
    parse_size,
    schema,
)
from turbopump.errors import ConfigError

EXAMPLES = Path(__file__).parent.parent / "examples"

# How a section stands in the file.
PLACES: dict[type[Section], Any] = {
    Config: lambda fields: fields,
    Cluster: lambda fields: {"cluster": fields},
    Member: lambda fields: {"members": [fields]},
    Tcp: lambda fields: {"members": [{"tcp": fields}]},
    Guests: lambda fields: {"members": [{"guests": fields}]},
    Limits: lambda fields: {"limits": fields},
    Callback: lambda fields: {"callbacks": [{"run": "json:loads"} | fields]},
    Keyspace: lambda fields: {"keyspaces": [{"prefix": ""} | fields]},
    Log: lambda fields: {"log": fields},
}

SIZES = [-1, "4 XB", "lots", 1.5, True, 1 << 61]
COUNTS = [0, -1, "16", 1.5, True, 1 << 40]
HOSTS = [
    "a b",
    "box..1",
    "-a",
    "a:b:c",
    "10.0.0.256",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "[::1",
    "[10.0.0.1]:1593",
]
PORTS = ["10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "box1:http", "[::]:1593", "[fe80::1%eth0]"]

# Values that each field must refuse. A field without an entry fails `test_no_field_is_left_out`.
WRONG: dict[tuple[type[Section], str], list[Any]] = {
    (Config, "members"): [[], {}, 5, [{"name": "a"}, {"name": "a"}], [{}] * 1025],
    (Config, "cluster"): [[], 5, "name"],
    (Config, "placement"): ["everywhere", "", 5, None],
    (Config, "copies"): [0, 17, "3", 1.5, True],
    (Config, "keyspaces"): [{}, 5, [{"prefix": "a"}, {"prefix": "a"}], [{}] * 1001],
    (Config, "callbacks"): [{}, 5, [{}], [{"run": "a:b"}] * 101],
    (Callback, "prefix"): [5, None],
    (Callback, "events"): [[], ["eaten"], "written", 5],
    (Callback, "concurrency"): [0, 257, "1", 1.5],
    (Callback, "timeout"): [0, -1, "1", 86_401],
    (Callback, "retries"): [-1, 101, "1", 1.5],
    (Callback, "backoff"): [0, -1, "1", 3601],
    (Callback, "queue"): COUNTS[:4],
    (Callback, "run"): ["", "a b", "a:b:c", [], ["a\0b"], [""], 5, None],
    (Config, "limits"): [[], None, 5],
    (Config, "log"): [[], None, "json"],
    (Config, "drain_seconds"): [-1, 3601, "10", None, float("nan")],
    (Cluster, "name"): ["", "a b", "-a", "a" * 64, 5, None],
    (Cluster, "secret"): ["", "a\0b", "{node}.secret", "{", 5, None],
    (Cluster, "key"): ["", "a\0b", "{Name}.key", "{}", 5, None],
    (Cluster, "sync_seconds"): [0, -1, "1", 3601, float("nan")],
    (Cluster, "ack_timeout"): [0, -1, "1", 3601],
    (Cluster, "peer_timeout"): [0, -1, "1", 3601],
    (Cluster, "max_hints"): SIZES,
    (Cluster, "max_message"): [*SIZES, 4095, 16385],
    (Cluster, "redirect"): [0, "yes", None],
    (Cluster, "congestion"): ["", "bbr2", 5, None],
    (Cluster, "stay_awake_us"): [-1, "1", 1.5, 10_001],
    (Member, "address"): ["", 5, "a" * 64, *HOSTS, *PORTS],
    (Member, "bind"): ["", "box1", "box1:1593", "10.0.0.1:x", 5],
    (Member, "public_key"): ["", "AAAA", "A" * 85, "A" * 87, "?" * 86, 5],
    (Member, "weight"): [-1, 1_000_001, "1", 1.5, True],
    (Member, "zone"): ["a" * 64, "a\nb", "\x7f", 5, None],
    (Member, "name"): ["", "a b", "-a", "a" * 64, 5, None],
    (Member, "socket"): ["", "a" * 108, "a\0b", 5, None],
    (Member, "socket_mode"): [600, "abc", "0999", "60", "07777", None],
    (Member, "tcp"): [[], True, 1592, "127.0.0.1"],
    (Member, "guests"): [[], None, 0],
    (Member, "reactors"): [0, 65, 1.5, "1", True],
    (Member, "max_memory"): SIZES,
    (Tcp, "host"): ["", 5, None, "0.0.0.0", "::", "box.example.org"],
    (Tcp, "port"): [-1, 65536, "1592", 1.5],
    (Tcp, "password"): ["", 5, True],
    (Guests, "uids"): [5, [-1], ["root"], [1.5], [2**32 - 1]],
    (Guests, "gids"): [5, [-1], ["root"], [1.5], [2**32 - 1]],
    (Limits, "max_key"): [*COUNTS, 65536],
    (Limits, "max_value"): [*SIZES, 0],
    (Limits, "max_line"): [*SIZES, 1023],
    (Limits, "max_request"): [*SIZES, 1023],
    (Limits, "max_args"): COUNTS,
    (Limits, "max_connections"): COUNTS,
    (Limits, "max_keys"): [*COUNTS, 2**33],
    (Limits, "max_output"): [*SIZES, 4095],
    (Limits, "max_relayed"): [*SIZES, 65_535],
    (Limits, "max_stall"): [0, -1, "1", 10**8],
    (Limits, "max_events"): COUNTS,
    (Limits, "max_waits"): [-1, "1", 1.5],
    (Limits, "max_watches"): [-1, "1", 1.5],
    (Limits, "max_changes"): COUNTS,
    (Limits, "max_change_bytes"): [*SIZES, 4095],
    (Limits, "max_siblings"): [-1, "1", 1.5, 1001],
    (Limits, "max_sibling_bytes"): SIZES,
    (Limits, "max_sibling_age"): [0, -1, "1", 10**9],
    (Limits, "max_once_bytes"): SIZES,
    (Limits, "max_once_age"): [0, -1, "1", 10**9],
    (Limits, "max_wait"): [0, -1, "1", 10**8],
    (Limits, "read_buffer"): [*SIZES, 4095],
    (Keyspace, "prefix"): [None, 5],
    (Keyspace, "writes"): ["linear", "", 5],
    (Keyspace, "ttl"): [0, -1, "1h", 10**11],
    (Keyspace, "max_memory"): SIZES,
    (Keyspace, "placement"): ["everywhere", "", 5],
    (Keyspace, "copies"): [0, 17, "3", 1.5, True],
    (Keyspace, "write_acks"): ["none", 1, None],
    (Keyspace, "read_acks"): ["all", 1, None],
    (Keyspace, "transport"): ["udp", 5, None],
    (Log, "format"): ["xml", 5],
    (Log, "level"): ["loud", "INFO", 5],
}


def sections(model: type[Section] = Config) -> set[type[Section]]:
    """All sections of the file, found through the types of the fields."""
    found = {model}
    for field in model.model_fields.values():
        for kind in _kinds(field.annotation):
            found |= sections(kind)
    return found


def _kinds(annotation: Any) -> set[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return {annotation}
    return {kind for inside in typing.get_args(annotation) for kind in _kinds(inside)}


CASES = [
    pytest.param(model, name, value, id=f"{model.__name__}.{name}={value!r:.30}")
    for (model, name), values in WRONG.items()
    for value in values
]


@pytest.mark.parametrize(("model", "name", "value"), CASES)
def test_a_wrong_field_is_named_with_its_fix(model: type[Section], name: str, value: Any) -> None:
    """Every line begins with the field and goes on with something to do."""
    with pytest.raises(ConfigError) as raised:
        parse(PLACES[model]({name: value}))

    for problem in raised.value.problems:
        where, _, fix = problem.partition(": ")
        assert name in where or model is Tcp
        assert len(fix) > 5


def test_no_field_is_left_out() -> None:
    """A new field comes with what it refuses."""
    fields = {(model, name) for model in sections() for name in model.model_fields}

    assert fields == set(WRONG)
    assert sections() == set(PLACES)


@pytest.mark.parametrize("model", PLACES, ids=lambda model: model.__name__)
def test_an_unknown_field_is_refused_everywhere(model: type[Section]) -> None:
    """A misspelt limit that is ignored is no limit."""
    name = next(iter(model.model_fields))
    with pytest.raises(ConfigError) as raised:
        parse(PLACES[model]({name + "x": 1}))

    assert raised.value.problems[-1].endswith(f"{name}x: unknown field; did you mean {name}?")


@pytest.mark.parametrize("model", PLACES, ids=lambda model: model.__name__)
def test_every_field_says_what_it_is(model: type[Section]) -> None:
    """The schema is the manual: editors show these sentences."""
    for name, field in model.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_an_empty_file_is_a_configuration() -> None:
    """Every section has a default."""
    config = parse({})

    assert config == Config()
    assert config.member().socket == "/tmp/turbopump"
    assert config.member().socket_mode == 0o600
    assert config.member().tcp is None


def test_nothing_changes_after_the_check() -> None:
    """What was checked is what is used."""
    with pytest.raises(ValueError, match="frozen"):
        Config().drain_seconds = 5


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("4GiB", 4 << 30),
        ("4 gib", 4 << 30),
        ("1.5KiB", 1536),
        ("2MB", 2_000_000),
        ("1kB", 1000),
        (77, 77),
    ],
)
def test_a_size_is_written_as_people_do(text: object, size: int) -> None:
    """GiB counts by 1024, GB by 1000, as the standards say."""
    assert parse_size(text) == size


@given(st.text(max_size=10))
def test_a_size_is_a_number_or_refused(text: str) -> None:
    """Whatever stands there."""
    try:
        size = parse_size(text)
    except ValueError:
        size = 0

    assert isinstance(size, int)
    assert size >= 0


def test_a_mode_is_octal() -> None:
    """600 in decimal would be 1130 in octal: an open door."""
    assert parse_mode("0600") == parse_mode("600") == 0o600
    with pytest.raises(ValueError, match="octal"):
        parse_mode(600)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.1", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback_is_told_apart(host: str, *, expected: bool) -> None:
    """A name that resolves to loopback today may not tomorrow."""
    assert is_loopback(host) is expected


def test_beyond_loopback_a_password_is_needed() -> None:
    """Otherwise everybody on the network is a client."""
    with pytest.raises(ConfigError, match="reachable from outside"):
        parse({"members": [{"tcp": {"host": "0.0.0.0"}}]})

    tcp = parse({"members": [{"tcp": {"host": "0.0.0.0", "password": "secret"}}]}).member().tcp
    assert tcp is not None
    assert "secret" not in repr(tcp)


def test_a_member_is_found_by_name() -> None:
    """And a wrong name is answered with the right one."""
    config = parse({"members": [{"name": "alpha"}]})

    assert config.member("alpha").name == "alpha"
    assert config.member().name == "alpha"
    with pytest.raises(ConfigError, match="did you mean alpha"):
        config.member("alhpa")


def test_a_socket_can_be_moved() -> None:
    """`serve --socket` is checked as the file is."""
    assert Config().with_socket("/tmp/x").member().socket == "/tmp/x"
    with pytest.raises(ConfigError, match=r"--socket .*108 bytes"):
        Config().with_socket("x" * 108)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "not JSON: line 1, column 2"),
        (b"", "not JSON: line 1, column 1"),
        (b'{"log": {}, "log": {}}', "log: stands twice"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"5", "write an object"),
        (b'{"keyspaces": [{"prefix": "\\ud800"}]}', "half a character"),
        (b'{"drain_seconds": NaN}', "write a finite number"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes, problem: str) -> None:
    """Each is one readable line, never a traceback."""
    file = tmp_path / "cluster.json"
    file.write_bytes(content)

    with pytest.raises(ConfigError, match=problem):
        load(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Nor is a folder a file."""
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "nothing.json")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.json")), ids=lambda file: file.name)
def test_the_examples_are_good(file: Path) -> None:
    """And an engine takes what comes of them for a node alone; a cluster's needs keys, and a port."""
    config = load(file)

    if config.cluster is None:
        Engine(engine_options(config, config.member()))


def test_the_schema_is_json_and_knows_every_field() -> None:
    """Editors complete by it; extra fields are refused there too."""
    described = json.loads(json.dumps(schema()))

    for model in sections() - {Config}:
        section = described["$defs"][model.__name__]
        assert set(section["properties"]) == set(model.model_fields)
        assert section["additionalProperties"] is False
    assert described["$defs"]["Member"]["properties"]["socket_mode"]["default"] == "0600"


def test_the_engine_gets_its_own_units() -> None:
    """Seconds become milliseconds, sizes bytes; nothing is lost or rounded to never."""
    config = parse(
        {
            "members": [{"name": "a", "max_memory": "1MiB", "guests": {"uids": [0]}}],
            "keyspaces": [{"prefix": "s/", "ttl": 0.0001, "writes": "immutable", "max_memory": "1kB"}],
        }
    )

    options = engine_options(config, config.member())
    limits = options["limits"]
    assert isinstance(limits, dict)
    assert limits["max_wait_ms"] == 3_600_000
    assert {name.removesuffix("_ms") for name in limits} == set(Limits.model_fields)
    assert options["max_memory"] == 1 << 20
    assert options["guests"] == {"uids": [0], "gids": None}
    shared = {"copies": 0, "write_acks": "quorum", "read_acks": "one", "datagram": False}
    assert options["keyspaces"] == [
        {"prefix": "s/", "writes": "immutable", "ttl_ms": 1, "max_memory": 1000} | shared,
        {"prefix": "", "writes": "versioned", "ttl_ms": None, "max_memory": 0} | shared,
    ]
    assert options["password"] is None
    assert options["cluster"] is None


@pytest.mark.parametrize(
    "name", ["name", "reactors", "limits", "guests", "keyspaces", "max_memory", "password", "cluster"]
)
def test_the_engine_misses_what_it_needs(name: str) -> None:
    """Configuration and engine cannot drift apart unseen."""
    options = engine_options(Config(), Member())
    del options[name]

    with pytest.raises(ValueError, match=f"{name}: is missing"):
        Engine(options)


def test_the_engine_refuses_what_it_does_not_know() -> None:
    """In both directions."""
    options = engine_options(Config(), Member()) | {"colour": "red"}

    with pytest.raises(ValueError, match="colour"):
        Engine(options)


def test_the_engine_has_the_same_defaults() -> None:
    """What tests in Rust run with is what users get."""
    rust = Path(__file__).parent.parent / "rust"
    ours = engine_options(Config(), Config().member())
    limits = typing.cast("dict[str, int]", ours["limits"])
    found = {}
    files = ("core/src/config", "core/src/feed", "core/src/siblings", "core/src/once", "engine/src/config")
    for name in (f"{file}.rs" for file in files):
        text = (rust / name).read_text(encoding="utf-8")
        defaults = text.partition("fn default()")[2].partition("\n    }\n")[0]
        for field, figure in re.findall(r"(\w+): (\d[\d_]*(?: <<? ?\d+| \* \d+)?)[, ]", defaults):
            factors = [int(part) for part in re.findall(r"\d+", figure.replace("_", ""))]
            place = field if name.endswith("config.rs") else f"{Path(name).stem}.{field}"
            found[place] = factors[0] << factors[1] if "<<" in figure else math.prod(factors)
    named = {
        "wait_ms_max": "max_wait_ms",
        "stall_ms_max": "max_stall_ms",
        "read_buffer": "read_buffer",
        "feed.bytes_max": "max_change_bytes",
        "feed.queue_max": "max_events",
        "siblings.count_max": "max_siblings",
        "siblings.bytes_max": "max_sibling_bytes",
        "siblings.age_ms_max": "max_sibling_age_ms",
        "once.bytes_max": "max_once_bytes",
        "once.age_ms_max": "max_once_age_ms",
    }
    for field, figure in found.items():
        name = named.get(field, "max_" + field.removeprefix("feed.").removesuffix("_max"))
        assert figure == (limits[name] if name in limits else ours.get(name, ours.get(field))), field
    assert len(found) >= len(limits)
