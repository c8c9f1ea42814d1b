"""The pipe protocol's commands, one by one: what each answers, raw and framed."""

import itertools
import json
import re
import threading
import time

import pytest

from conftest import Serve, Served
from wire import Wire, once, until

NUMBERS = itertools.count()
VERSION = r"[0-9a-f]{16}-[0-9a-f]{16}"
COMMANDS = [
    "write",
    "read",
    "delete",
    "exists",
    "list",
    "local_list",
    "versions",
    "wait",
    "membership",
    "ring",
    "state",
    "status",
    "ping",
    "help",
    "keep",
]
CURSOR = re.compile(rb"next\|cursor=(\d+)")
PAGES_MAX = 10_000


@pytest.fixture
def name() -> str:
    """A key, and a prefix, that no other test uses."""
    return f"command-{next(NUMBERS)}/"


def ask(node: Served, line: str) -> bytes:
    """The answer to one command in a connection of its own."""
    return once(node.socket, line.encode() + b"\n")


def version_of(answer: bytes) -> str:
    """The version in a status line."""
    found = re.search(rf"version=({VERSION})\b", answer.decode())
    assert found, answer
    return found[1]


def test_a_write_answers_its_version(node: Served, name: str) -> None:
    """Versions of one key rise, as text; a delete has one too."""
    first = ask(node, f"write|name={name}|1")
    second = ask(node, f"write|name={name}|2")
    deleted = ask(node, f"delete|name={name}|")

    assert re.fullmatch(rf"ok\|version={VERSION}\n", first.decode())
    assert re.fullmatch(rf"ok\|deleted=1 version={VERSION}\n", deleted.decode())
    assert version_of(first) < version_of(second) < version_of(deleted)


def test_a_write_replaces_the_whole_value(node: Served, name: str) -> None:
    """Longer or shorter, and across the size from which values are kept apart."""
    for size in (10, 3, 100_000, 1, 40_000, 0, 70_000):
        with Wire(node.socket) as wire:
            wire.send(f"write|name={name} length={size}|".encode() + b"%d" % (size % 10) * size)
            assert wire.rest().startswith(b"ok|version=")

        assert ask(node, f"read|name={name}|") == b"%d" % (size % 10) * size


def test_an_empty_value_is_a_value(node: Served, name: str) -> None:
    """The first turbopump could not tell it from none."""
    ask(node, f"write|name={name}|")

    assert ask(node, f"read|name={name}|") == b""
    assert ask(node, f"exists|name={name}|") == b"ok|exists=1\n"
    assert f"({name})=>0".encode() in ask(node, f"local_list|prefix={name}|")


def test_a_delete_says_whether_there_was_something(node: Served, name: str) -> None:
    """The second one has nothing to do."""
    ask(node, f"write|name={name}|x")

    assert ask(node, f"delete|name={name}|").startswith(b"ok|deleted=1 version=")
    assert ask(node, f"delete|name={name}|") == b"ok|deleted=0\n"
    assert ask(node, f"read|name={name}|").startswith(b"error|code=not_found|")
    assert ask(node, f"exists|name={name}|") == b"ok|exists=0\n"


def test_a_write_may_depend_on_there_being_a_value(node: Served, name: str) -> None:
    """`if=`: what does not hold changes nothing."""
    assert ask(node, f"write|name={name} if=present|1").startswith(b"error|code=missing|")
    assert ask(node, f"write|name={name} if=absent|2").startswith(b"ok|version=")
    assert ask(node, f"write|name={name} if=absent|3").startswith(b"error|code=exists|")
    assert ask(node, f"read|name={name}|") == b"2"
    assert ask(node, f"write|name={name} if=present|4").startswith(b"ok|version=")
    assert ask(node, f"read|name={name}|") == b"4"


def test_a_write_may_depend_on_a_version(node: Served, name: str) -> None:
    """Compare and set: of two who read the same version, one writes."""
    first = version_of(ask(node, f"write|name={name}|1"))
    second = version_of(ask(node, f"write|name={name} if_version={first}|2"))
    refused = ask(node, f"write|name={name} if_version={first}|3")

    assert refused.startswith(b"error|code=version_mismatch|")
    assert version_of(b"version=" + refused.split(b"version ")[1]) == second
    assert ask(node, f"read|name={name}|") == b"2"
    assert ask(node, f"delete|name={name} if_version={first}|").startswith(b"error|code=version_mismatch|")
    assert ask(node, f"delete|name={name} if_version={second}|").startswith(b"ok|deleted=1")
    assert ask(node, f"write|name={name} if_version={second}|4").startswith(b"error|code=missing|")


def test_a_write_with_a_name_is_done_once(node: Served, name: str) -> None:
    """Sent again it is answered as the first time, whatever happened since; a refused one is not done."""
    first = ask(node, f"write|name={name} once=a if=absent|1")
    ask(node, f"write|name={name}|2")
    assert ask(node, f"write|name={name} once=a if=absent|1") == first
    assert ask(node, f"read|name={name}|") == b"2"

    assert b"code=exists" in ask(node, f"write|name={name} once=b if=absent|3")
    deleted = ask(node, f"delete|name={name} once=c|")
    assert ask(node, f"write|name={name} once=b if=absent|3") != first
    assert ask(node, f"delete|name={name} once=c|") == deleted
    assert ask(node, f"read|name={name}|") == b"3"

    nothing = ask(node, f"delete|name={name}none once=d|")
    ask(node, f"write|name={name}none|1")
    assert ask(node, f"delete|name={name}none once=d|") == nothing
    assert ask(node, f"read|name={name}none|") == b"1"


@pytest.mark.parametrize("bad", ["", "x" * 65])
def test_the_name_of_a_write_has_a_length(node: Served, name: str, bad: str) -> None:
    """The refusal says which; nothing is written."""
    assert b"1 to 64 bytes" in ask(node, f"write|name={name} once={bad}|1")
    assert b"code=not_found" in ask(node, f"read|name={name}|")


def test_a_lifetime_ends(node: Served, name: str) -> None:
    """And a fraction of a second is one; a write without one lasts."""
    ask(node, f"write|name={name} ttl=0.05|x")
    ask(node, f"write|name={name}last ttl=1000|x")
    ask(node, f"write|name={name}last|y")

    until(lambda: ask(node, f"exists|name={name}|") == b"ok|exists=0\n", "the value's end")
    assert ask(node, f"list|prefix={name}|") == f"{name}last\n".encode()
    assert b"expires=" not in ask(node, f"versions|name={name}last|")


def test_a_version_is_read_by_its_name(node: Served, name: str) -> None:
    """The value, if it is that of the version; none that was replaced by one that knew it."""
    first = version_of(ask(node, f"write|name={name}|one"))
    assert ask(node, f"read|name={name} version={first}|") == b"one"
    second = version_of(ask(node, f"write|name={name}|two"))
    assert ask(node, f"read|name={name} version={second}|") == b"two"
    assert ask(node, f"read|name={name} version={first}|").startswith(b"error|code=not_found|")
    assert ask(node, f"read|name={name} version=1|").startswith(b"error|code=bad_param|")


def test_versions_tells_size_state_and_expiry(node: Served, name: str) -> None:
    """A line for each; a key that never was has none."""
    version = version_of(ask(node, f"write|name={name} length=5|a\n\n\nb"))
    assert ask(node, f"versions|name={name}|") == f"version={version} size=5 state=value\n".encode()

    before = time.time_ns() // 1_000_000
    ask(node, f"write|name={name} ttl=100|x")
    line = ask(node, f"versions|name={name}|").decode()
    found = re.fullmatch(rf"version={VERSION} size=1 state=value expires=(\d+)\n", line)
    assert found, line
    assert before + 100_000 <= int(found[1]) <= time.time_ns() // 1_000_000 + 100_000

    assert ask(node, f"versions|name={name}never|").startswith(b"error|code=not_found|")


def test_a_framed_read_tells_version_and_expiry(node: Served, name: str) -> None:
    """What a raw value cannot say."""
    with Wire(node.socket).keep(frame=True) as wire:
        wire.send(f"write|name={name} ttl=100|x\nread|name={name}|\n".encode())
        written, read = wire.framed(), wire.framed()

        assert read.params["version"] == written.params["version"]
        assert int(read.params["expires"]) > time.time_ns() // 1_000_000
        assert read.body == b"x"


def test_wait_answers_at_once_what_is_there(node: Served, name: str) -> None:
    """With the version, as the write did."""
    written = ask(node, f"write|name={name}|x")

    assert ask(node, f"wait|name={name} timeout=10|") == written


def test_wait_answers_when_another_connection_writes(node: Served, name: str) -> None:
    """And not before; whichever protocol wrote."""
    for key, write in ((f"{name}pipe", b"write|name=%b|x\n"), (f"{name}resp", b"SET %b x\r\n")):
        with Wire(node.socket) as waiting, Wire(node.socket) as waiting_too:
            for wire in (waiting, waiting_too):
                wire.send(f"wait|name={key} timeout=20|\n".encode())
            waits(node, 2)
            with Wire(node.socket) as writing:
                writing.send(write % key.encode()).line()

            version = version_of(ask(node, f"versions|name={key}|"))
            assert waiting.rest() == waiting_too.rest() == f"ok|version={version}\n".encode()


def waits(node: Served, count: int) -> None:
    """Returns when so many others are connected and what they sent before has been read."""
    until(lambda: json.loads(ask(node, "status||"))["connections"] >= count + 1, "all to be connected")


def test_wait_gives_up_in_time(node: Served, name: str) -> None:
    """Not earlier, not much later, and the connection goes on."""
    with Wire(node.socket).keep() as wire:
        start = time.monotonic()
        wire.send(f"wait|name={name} timeout=0.2|\nping||\n".encode())

        assert wire.line().startswith(b"error|code=timeout|")
        assert 0.2 <= time.monotonic() - start + 0.002 < 5
        assert wire.line() == b"pong"


def test_a_wait_keeps_its_place_in_the_pipeline(node: Served, name: str) -> None:
    """What follows it is answered after it, and others are served meanwhile."""
    with Wire(node.socket).keep() as wire:
        wire.send(f"wait|name={name} timeout=20|\nread|name={name}|\n".encode())
        assert ask(node, "ping||") == b"pong\n"
        written = ask(node, f"write|name={name}|now")

        assert wire.line() + b"\n" == written
        assert wire.exactly(3) == b"now"


def test_many_wait_for_one_key(node: Served, name: str) -> None:
    """One write answers them all."""
    wires = [Wire(node.socket) for _ in range(100)]
    for wire in wires:
        wire.send(f"wait|name={name} timeout=20|\n".encode())
    waits(node, len(wires))
    written = ask(node, f"write|name={name}|x")

    for wire in wires:
        with wire:
            assert wire.rest() == written


def fill(node: Served, prefix: str, count: int) -> dict[bytes, int]:
    """Writes so many keys; tells the size of each."""
    sizes = {f"{prefix}{number:04}".encode(): number % 50 for number in range(count)}
    with Wire(node.socket).keep() as wire:
        wire.send(b"".join(b"write|name=%b|%b\n" % (key, b"x" * size) for key, size in sizes.items()))
        for _ in sizes:
            assert wire.line().startswith(b"ok|")
    return sizes


def pages(node: Served, line: str) -> list[list[bytes]]:
    """The pages of a listing, by its own cursors."""
    found, cursor = [], b"0"
    for _ in range(PAGES_MAX):
        lines = ask(node, line.replace("CURSOR", cursor.decode())).splitlines()
        more = CURSOR.fullmatch(lines[-1]) if lines else None
        found.append(lines[:-1] if more else lines)
        if more is None:
            return found
        cursor = more[1]
    raise AssertionError("the listing has no end")


@pytest.mark.parametrize("limit", [1, 7, 100, 299, 300, 301, 100_000])
def test_a_listing_goes_on_at_its_cursor_until_the_end(node: Served, name: str, limit: int) -> None:
    """Each key once, no page much longer than the limit, whatever the limit is."""
    sizes = fill(node, name, 300)

    listed = pages(node, f"list|prefix={name} limit={limit} cursor=CURSOR|")
    sized = pages(node, f"local_list|prefix={name} limit={limit} cursor=CURSOR|")

    assert sorted(itertools.chain(*listed)) == sorted(sizes)
    assert sorted(itertools.chain(*sized)) == sorted(b"(%b)=>%d" % pair for pair in sizes.items())
    assert max(map(len, listed)) <= limit


def test_a_listing_without_a_limit_is_whole(node: Served, name: str) -> None:
    """As the first turbopump's was."""
    sizes = fill(node, name, 2_000)

    assert sorted(ask(node, f"list|prefix={name}|").splitlines()) == sorted(sizes)
    assert ask(node, f"list|prefix={name}nothing|") == b""
    assert set(sizes) <= set(ask(node, "list||").splitlines())


def test_a_listing_holds_what_was_there_all_the_time(node: Served, name: str) -> None:
    """Whatever others write and delete between two pages."""
    stays = set(fill(node, f"{name}stays-", 500))
    over = threading.Event()

    def disturb() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            fill(node, f"{name}comes-{number % 3}-", 300)
            ask(node, f"delete|name={name}comes-{number % 3}-0001|")

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        listed = list(itertools.chain(*pages(node, f"list|prefix={name} limit=20 cursor=CURSOR|")))
    finally:
        over.set()
        disturber.join()

    assert stays <= set(listed)
    assert len(listed) == len(set(listed))


def test_a_framed_listing_tells_its_cursor_apart(node: Served, name: str) -> None:
    """Its lines are keys and nothing else; without a limit it has one of its own."""
    sizes = fill(node, name, 1_500)
    listed: list[bytes] = []
    cursor = "0"
    with Wire(node.socket).keep(frame=True) as wire:
        for _ in range(PAGES_MAX):
            page = wire.send(f"list|prefix={name} cursor={cursor}|\n".encode()).framed()
            listed += page.body.splitlines()
            if "cursor" not in page.params:
                break
            cursor = page.params["cursor"]

    assert sorted(listed) == sorted(sizes)


def test_the_node_tells_about_itself(node: Served) -> None:
    """A line for each member, the slots, a word, and JSON."""
    assert ask(node, "membership||").decode() == f"node alive {node.socket}\n"
    assert ask(node, "ring||") == b"0-16383 node\n"
    assert ask(node, "state||") == b"running\n"
    assert ask(node, "ping||") == b"pong\n"

    status = json.loads(ask(node, "status||"))
    assert status["state"] == "running"
    assert status["pid"] == node.process.pid
    assert status["addresses"] == [node.socket]


def test_help_documents_every_command_and_parameter(node: Served) -> None:
    """In lines that fit a terminal."""
    text = ask(node, "help||").decode()
    rows = {line.split()[0]: line for line in text.splitlines() if line.split()}

    assert set(COMMANDS) <= set(rows)
    for command, words in {
        "write": ["name=", "length=", "ttl=", "if=", "if_version="],
        "list": ["prefix=", "limit=", "cursor="],
        "local_list": ["prefix=", "limit=", "cursor="],
        "wait": ["name=", "timeout="],
    }.items():
        assert [word for word in words if word not in rows[command]] == []
    for word in ("keep||", "frame=1", "id=", "length=eof", "%7C", "error|code="):
        assert word in text
    for word in ("seconds", "absent", "present", "next|cursor="):
        assert word in text, f"help does not tell what a parameter takes: {word}"
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_help_names_is_known(node: Served, command: str) -> None:
    """Whatever it answers, it is not `unknown_command`."""
    assert b"unknown_command" not in ask(node, f"{command}|name=help timeout=0.001|")


def test_an_immutable_key_keeps_its_value(serve: Serve) -> None:
    """The same again is fine, another one is refused with the version that stays."""
    node = serve({"keyspaces": [{"prefix": "fixed/", "writes": "immutable"}]}).ready()
    first = ask(node, "write|name=fixed/a|1")

    assert ask(node, "write|name=fixed/a|1") == first
    refused = ask(node, "write|name=fixed/a|2")
    assert refused.startswith(b"error|code=immutable|")
    assert version_of(first).encode() in refused
    assert ask(node, "read|name=fixed/a|") == b"1"
    assert ask(node, "write|name=free/a|1") != ask(node, "write|name=free/a|1")


def test_a_keyspace_gives_its_lifetime(serve: Serve) -> None:
    """Unless the write states one."""
    node = serve({"keyspaces": [{"prefix": "short/", "ttl": 0.05}]}).ready()
    ask(node, "write|name=short/a|x")
    ask(node, "write|name=short/b ttl=1000|x")

    until(lambda: ask(node, "exists|name=short/a|") == b"ok|exists=0\n", "the value's end")
    assert ask(node, "exists|name=short/b|") == b"ok|exists=1\n"
