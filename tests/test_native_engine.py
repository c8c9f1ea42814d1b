"""`Engine`: the data plane that runs inside the process, its life, and what it says about itself."""

import os
import random
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turbopump import ConflictError, NoSpaceError, RequestError, TurbopumpError, key_slot
from turbopump._native import Asked, Drained, Engine, Entry, Refusal
from turbopump.config import engine_options, parse
from wire import Wire, once, until

NEVER = f"{0:016x}-{0:016x}"
PAGES_MAX = 100_000
LIMITS = {"max_key": 64, "max_value": 100_000}
KEYS = st.binary(min_size=1, max_size=64)


def options(**document: Any) -> dict[str, Any]:
    """The engine's options for a configuration."""
    config = parse(document)
    return engine_options(config, config.member())


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine whose threads do not run: the data plane needs none."""
    made = Engine(options(limits=LIMITS, keyspaces=[{"prefix": "fixed/", "writes": "immutable"}]))
    yield made
    made.stop()


@pytest.fixture
def served(folder: Path) -> Iterator[tuple[Engine, str]]:
    """A running engine, and the path of its socket."""
    made = Engine(options())
    made.start()
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(100)
        made.listen(listener.fileno(), tcp=False)
    yield made, path
    made.stop()


def code(error: pytest.ExceptionInfo[TurbopumpError]) -> str:
    """The word a program matches on."""
    return error.value.code


def everything(engine: Engine, limit: int, prefix: bytes = b"") -> list[tuple[bytes, int]]:
    """All pages of a scan."""
    found, cursor = [], 0
    for _ in range(PAGES_MAX):
        cursor, page = engine.scan(cursor, limit, prefix)
        found += page
        if cursor == 0:
            return found
    raise AssertionError("the scan has no end")


def test_a_value_is_put_read_and_deleted(engine: Engine) -> None:
    """With its version; there is nothing before and nothing after."""
    assert engine.get(b"a") is None
    assert engine.read(b"a") is None
    assert not engine.exists(b"a")
    version = engine.put(b"a", b"1")

    assert engine.get(b"a") == b"1"
    match engine.read(b"a"):
        case Entry(value, told, expires):
            assert (value, told, expires) == (b"1", version, None)
        case other:
            raise AssertionError(other)
    assert engine.exists(b"a")
    deleted = engine.delete(b"a")
    assert deleted is not None
    assert deleted > version
    assert engine.delete(b"a") is None
    assert engine.get(b"a") is None


@given(st.lists(st.tuples(KEYS, st.one_of(st.none(), st.binary(max_size=50))), max_size=40))
@settings(max_examples=50, deadline=None)
def test_it_is_a_dict(steps: list[tuple[bytes, bytes | None]]) -> None:
    """Of what was put and not deleted; versions only rise."""
    engine = Engine(options())
    model: dict[bytes, bytes] = {}
    last = ""
    for key, value in steps:
        if value is None:
            assert (engine.delete(key) is not None) == (model.pop(key, None) is not None)
        else:
            version = engine.put(key, value)
            model[key] = value
            assert version > last
            last = version

    assert {key: engine.get(key) for key, _ in steps} == {key: model.get(key) for key, _ in steps}
    assert dict(everything(engine, 3)) == {key: len(value) for key, value in model.items()}
    assert engine.clear() == len(model)
    assert everything(engine, 3) == []


@pytest.mark.parametrize("size", [0, 1, 32_767, 32_768, 32_769, 99_999, 100_000])
def test_values_of_every_size_are_whole(engine: Engine, size: int) -> None:
    """Around the size from which they are kept in another way, and up to the limit."""
    value = random.Random(size).randbytes(size)
    engine.put(b"a", value)

    assert engine.get(b"a") == value
    assert everything(engine, 10) == [(b"a", size)]


def test_conditions(engine: Engine) -> None:
    """Each refusal has its code, and changes nothing."""
    with pytest.raises(ConflictError) as missing:
        engine.put(b"a", b"0", None, "present")
    first = engine.put(b"a", b"1", None, "absent")
    with pytest.raises(ConflictError) as exists:
        engine.put(b"a", b"0", None, "absent")
    second = engine.put(b"a", b"2", None, "present")
    with pytest.raises(ConflictError) as mismatch:
        engine.put(b"a", b"0", if_version=first)
    with pytest.raises(ConflictError) as kept:
        engine.delete(b"a", first)
    third = engine.put(b"a", b"3", if_version=second)
    with pytest.raises(ConflictError) as gone:
        engine.put(b"b", b"0", if_version=NEVER)

    codes = [code(error) for error in (missing, exists, mismatch, kept, gone)]
    assert codes == ["missing", "exists", "version_mismatch", "version_mismatch", "missing"]
    assert second in str(mismatch.value)
    assert engine.get(b"a") == b"3"
    assert engine.delete(b"a", third) is not None


def test_an_immutable_key_keeps_its_first_value(engine: Engine) -> None:
    """The same again is the same version; another value is a conflict that names it."""
    first = engine.put(b"fixed/a", b"1")
    assert engine.put(b"fixed/a", b"1") == first
    with pytest.raises(ConflictError) as refused:
        engine.put(b"fixed/a", b"2")

    assert code(refused) == "immutable"
    assert first in str(refused.value)
    assert engine.get(b"fixed/a") == b"1"


def test_a_lifetime_ends(engine: Engine) -> None:
    """Even while no thread runs that collects what is over."""
    engine.put(b"a", b"1", 10)
    entry = engine.read(b"a")
    assert entry is None or entry.expires_ms is not None
    until(lambda: engine.get(b"a") is None, "the value's end")

    assert not engine.exists(b"a")
    assert engine.read(b"a") is None
    assert everything(engine, 10) == []
    assert engine.delete(b"a") is None


@pytest.mark.parametrize("key", [b"", b"x" * 65], ids=["empty", "long"])
def test_a_key_that_is_none_is_refused_everywhere(engine: Engine, key: bytes) -> None:
    """By each method that takes one."""
    for call in (engine.get, engine.read, engine.delete, engine.exists, lambda key: engine.put(key, b"1")):
        with pytest.raises(RequestError) as refused:
            call(key)
        assert code(refused) == "bad_key"
        assert "64" in str(refused.value)


def test_a_value_that_is_too_long_is_refused(engine: Engine) -> None:
    """The old one stays."""
    engine.put(b"a", b"1")
    with pytest.raises(RequestError) as refused:
        engine.put(b"a", b"x" * 100_001)

    assert code(refused) == "value_too_long"
    assert engine.get(b"a") == b"1"


@pytest.mark.parametrize(
    "arguments", [(0,), (-1,), (2**64,), (None, None, "junk"), (None, None, ""), (None, None, NEVER[:-1])]
)
def test_an_argument_out_of_range_is_a_request_error(engine: Engine, arguments: tuple[Any, ...]) -> None:
    """As the pipe protocol's `bad_param`; nothing changed."""
    engine.put(b"a", b"1")
    with pytest.raises(RequestError) as refused:
        engine.put(b"a", b"2", *arguments)

    assert code(refused) == "bad_param"
    assert engine.get(b"a") == b"1"


def refusal(engine: Engine, key: bytes) -> NoSpaceError | None:
    """Why a write finds no room, if it finds none."""
    try:
        engine.put(key, b"v" * 1_000)
    except NoSpaceError as error:
        return error
    return None


def test_a_full_engine_refuses_and_goes_on_reading() -> None:
    """With what is used, what was wanted, and what to do."""
    engine = Engine(options(members=[{"max_memory": "1MiB"}]))
    stored = 0
    while (refused := refusal(engine, b"k%d" % stored)) is None and stored < 100_000:
        stored += 1

    assert refused is not None
    assert refused.code == "no_space"
    assert "max_memory" in str(refused)
    assert all(engine.get(b"k%d" % number) == b"v" * 1_000 for number in range(stored))
    engine.delete(b"k0")
    engine.put(b"k0", b"v" * 1_000)
    memory = engine.stats()["memory"]
    assert isinstance(memory, int)
    assert 900_000 < memory <= 1 << 20


def test_a_keyspace_has_an_account_of_its_own() -> None:
    """One that is full leaves room for the others."""
    engine = Engine(options(keyspaces=[{"prefix": "small/", "max_memory": 10_000}]))
    assert any(refusal(engine, b"small/%d" % number) for number in range(1_000))
    engine.put(b"large", b"v" * 100_000)

    accounts = engine.stats()["keyspaces"]
    assert isinstance(accounts, list)
    by_prefix = {account["prefix"]: account for account in accounts}
    assert by_prefix["small/"]["memory"] <= 10_000 == by_prefix["small/"]["max_memory"]
    assert by_prefix[""]["keys"] == 1
    engine.clear()
    assert {account["keys"] for account in engine.stats()["keyspaces"]} == {0}  # type: ignore[attr-defined]


@pytest.mark.parametrize("limit", [1, 2, 7, 100, 10_000])
def test_a_scan_finds_every_key_once(engine: Engine, limit: int) -> None:
    """Whatever the limit; a prefix leaves out the others."""
    keys = {b"%d" % number: number % 100 for number in range(2_000)}
    for key, size in keys.items():
        engine.put(key, b"x" * size)

    found = everything(engine, limit)
    assert len(found) == len(keys)
    assert dict(found) == keys
    assert {key for key, _ in everything(engine, limit, b"19")} == {
        key for key in keys if key.startswith(b"19")
    }


@given(st.sets(KEYS, min_size=1, max_size=50), st.sets(KEYS, max_size=50), st.integers(1, 10), st.randoms())
@settings(max_examples=50, deadline=None)
def test_a_scan_under_writes_finds_what_stays(
    stays: set[bytes], comes: set[bytes], limit: int, chance: random.Random
) -> None:
    """Between each two pages, others are written and deleted: the table grows and shrinks."""
    engine = Engine(options())
    for key in stays:
        engine.put(key, b"x")
    found, cursor = [], 0
    for _ in range(PAGES_MAX):
        cursor, page = engine.scan(cursor, limit)
        found += [key for key, _ in page]
        if cursor == 0:
            break
        for key in comes - stays:
            if chance.random() < 0.5:
                engine.put(key, b"y")
            else:
                engine.delete(key)
        for key in stays:
            engine.put(key, b"z" * chance.randrange(5))

    assert stays <= set(found) <= stays | comes
    assert all(found.count(key) == 1 for key in stays)


def test_the_tree_is_that_of_what_is_held(engine: Engine) -> None:
    """A write changes its slot; what has been deleted is gone while there are no peers."""
    empty = engine.merkle()
    engine.put(b"a", b"1")
    engine.put(b"b", b"1")
    before = engine.merkle()
    assert before.diff(empty) == sorted({key_slot(b"a"), key_slot(b"b")})
    engine.put(b"a", b"2")
    assert engine.merkle().diff(before) == [key_slot(b"a")]
    assert engine.merkle().diff(before) != []
    engine.delete(b"a")
    engine.delete(b"b")

    assert engine.merkle() == empty
    assert engine.merkle().root() == bytes(16)


def test_many_threads_use_it_at_once(engine: Engine) -> None:
    """Every write counts, no two have one version, and of a race to be first one wins."""
    versions: list[str] = []
    winners: list[int] = []

    def work(number: int) -> None:
        for step in range(2_000):
            versions.append(engine.put(b"shared-%d" % (step % 10), b"%d-%d" % (number, step)))
            assert engine.get(b"shared-%d" % (step % 10)) is not None
        for step in range(200):
            try:
                engine.put(b"first-%d" % step, b"%d" % number, None, "absent")
            except ConflictError:
                continue
            winners.append(step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(versions)) == len(versions) == 8_000
    assert sorted(winners) == list(range(200))


def test_clients_and_the_process_share_the_store(served: tuple[Engine, str]) -> None:
    """What one writes the other reads, and who waits for a key is woken."""
    engine, path = served
    once(path, b"write|name=from-client|1\n")
    assert engine.get(b"from-client") == b"1"
    with Wire(path) as wire:
        wire.send(b"wait|name=from-process timeout=20|\n")
        once(path, b"ping||\n")
        version = engine.put(b"from-process", b"2")
        assert wire.rest() == f"ok|version={version}\n".encode()


def test_clients_are_told_and_ended(served: tuple[Engine, str]) -> None:
    """By the number that CLIENT ID tells them."""
    engine, path = served
    with Wire(path) as wire:
        wire.ask("CLIENT", "SETNAME", "told")
        mine = int(wire.ask("CLIENT", "ID")[1:])
        [client] = [client for client in engine.clients() if client["id"] == mine]
        assert (client["name"], client["protocol"], client["tcp"], client["unsent"]) == (
            "told",
            "resp",
            False,
            0,
        )

        assert engine.kill(mine)
        assert wire.rest() == b""
    assert not engine.kill(mine)


def test_counters_count(served: tuple[Engine, str]) -> None:
    """Each thing once, from clients and from the process alike."""
    engine, path = served
    engine.put(b"a", b"1")
    once(path, b"write|name=b|1\n")
    engine.get(b"a")
    engine.get(b"none")
    engine.delete(b"a")
    once(path, b"nonsense||\n")

    stats = engine.stats()
    assert {name: stats[name] for name in ("writes", "deletes", "hits", "misses", "refusals", "keys")} == {
        "writes": 2,
        "deletes": 1,
        "hits": 1,
        "misses": 1,
        "refusals": 1,
        "keys": 1,
    }


def asked(engine: Engine) -> Asked:
    """Waits for a cold command."""
    for _ in range(1_000):
        assert select.select([engine], [], [], 20)[0], "nothing happened"
        for event in engine.poll_events():
            if isinstance(event, Asked):
                return event
    raise AssertionError("a thousand other events")


def test_a_cold_command_waits_for_its_answer(served: tuple[Engine, str]) -> None:
    """Whatever that is, in the words of the protocol."""
    engine, path = served
    with Wire(path) as wire:
        for answer, reply in (
            (None, b"$-1\r\n"),
            (True, b"+OK\r\n"),
            (7, b":7\r\n"),
            ("text", b"$4\r\ntext\r\n"),
            (b"\xff", b"$1\r\n\xff\r\n"),
            ([1, [b"x"]], b"*2\r\n:1\r\n*1\r\n$1\r\nx\r\n"),
            ({"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n"),
            (Refusal("bad_param", "so not"), b"-ERR so not\r\n"),
        ):
            wire.send(b"*2\r\n$4\r\nINFO\r\n$1\r\nx\r\n")
            event = asked(engine)
            assert (event.command, event.args) == ("info", [b"x"])
            engine.reply(event.ask, answer)  # type: ignore[arg-type] # mypy joins the types of the tuple
            assert wire.reply() == reply
            engine.reply(event.ask, "again")  # nobody asks for it any more


@pytest.mark.parametrize("answer", [{1, 2}, 1.5, object(), 2**70, -(2**70), [1.5], {1: 2}])
def test_an_answer_that_no_protocol_can_say(served: tuple[Engine, str], answer: Any) -> None:
    """Is a TypeError, and the client is answered by whoever catches it."""
    engine, path = served
    with Wire(path) as wire:
        wire.send(b"state||\n")
        event = asked(engine)
        with pytest.raises(TypeError):
            engine.reply(event.ask, answer)
        engine.reply(event.ask, Refusal("internal", "no answer"))
        assert wire.rest() == b"error|code=internal|no answer\n"


def test_a_client_that_leaves_before_its_cold_answer(served: tuple[Engine, str]) -> None:
    """Its answer is nobody's, and not the next one's."""
    engine, path = served
    with Wire(path) as wire:
        wire.send(b"state||\n")
        first = asked(engine)
    until(lambda: engine.clients() == [], "the client to be forgotten")
    with Wire(path) as wire:
        wire.send(b"state||\n")
        second = asked(engine)
        engine.reply(first.ask, "the first one's")
        engine.reply(second.ask, "the second one's")
        assert wire.rest() == b"the second one's\n"


def test_a_life(folder: Path) -> None:
    """Started once; drained and stopped in any order, and as often as one likes; nothing is left."""
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - this is what counts threads
    for _ in range(20):
        engine = Engine(options(members=[{"reactors": 2}]))
        engine.start()
        with pytest.raises(RuntimeError):
            engine.start()
        engine.drain(1_000)
        assert select.select([engine], [], [], 20)[0]
        [event] = engine.poll_events()
        assert isinstance(event, Drained)
        assert (event.answered, event.aborted) == (0, 0)
        engine.stop()
        engine.stop()
        engine.drain(1)
        assert engine.clients() == []
        assert not engine.kill(1)
    Engine(options()).stop()

    assert len(os.listdir("/proc/self/task")) <= threads  # noqa: PTH208
    assert folder.exists()


def test_a_drain_is_over_once_however_often_it_is_asked_for(folder: Path) -> None:
    """A reactor that has nothing to do any more does not answer for one that still serves somebody."""
    engine = Engine(options(members=[{"reactors": 2}]))
    engine.start()
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(100)
        engine.listen(listener.fileno(), tcp=False)
    with Wire(path) as wire:
        wire.send(b"write|name=a length=2|x")
        until(lambda: len(engine.clients()) == 1, "the client to be served")
        for _ in range(3):
            engine.drain(2**64 - 1)
            for _ in range(2):  # each asks all reactors, behind what they were told before
                assert len(engine.clients()) == 1
        assert engine.poll_events() == []
        wire.send(b"y\n")
        assert wire.rest().startswith(b"ok|version=")
    assert select.select([engine], [], [], 20)[0]
    [event] = engine.poll_events()
    assert isinstance(event, Drained)
    assert (event.answered, event.aborted) == (0, 0)  # its only command ended the connection
    engine.stop()


@pytest.mark.parametrize("fd", [-1, 2**20, 2**40])
def test_a_descriptor_that_is_none(fd: int) -> None:
    """Is an error of the call, and of nothing else."""
    engine = Engine(options())
    engine.start()
    with pytest.raises((OSError, ValueError, OverflowError)):
        engine.listen(fd, tcp=False)
    engine.stop()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("colour", "red"),
        ("name", 1),
        ("reactors", -1),
        ("reactors", "one"),
        ("max_memory", -1),
        ("password", 1),
        ("guests", None),
        ("guests.uids", [-1]),
        ("limits", None),
        ("limits.max_key", -1),
        ("limits.max_values", 1),
        ("keyspaces", [{"prefix": "a"}]),
        ("keyspaces", [{"prefix": "a", "writes": "linear", "ttl_ms": None, "max_memory": 0}]),
    ],
)
def test_a_wrong_option_is_named(path: str, value: object) -> None:
    """By the words that led to it."""
    wrong: dict[str, Any] = options()
    *above, last = path.split(".")
    section = wrong
    for word in above:
        section[word] = dict(section[word])
        section = section[word]
    section[last] = value

    with pytest.raises(ValueError, match=last if value is not None else above[-1] if above else last):
        Engine(wrong)
