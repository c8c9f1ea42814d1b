"""Conversations at their edges: bytes cut anywhere, clients that never read, vanish, or send too much."""

import random
import re
import socket
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from conftest import Serve, Served
from wire import Wire, command, once, resident, until

VERSION = re.compile(rb"[0-9a-f]{16}-[0-9a-f]{16}")
PIPE = (
    b"keep||\nwrite|name=cut%2Fa length=7|a|b\nc|d\nread|name=cut%2Fa|\nnonsense|x\n"
    b"write|name=cut/b ttl=100|v\nexists|name=cut/b frame=1 id=5|\nstate||\nread|name=cut/b|\n"
    b"delete|name=cut/b|\nping||\n"
)
RESP = (
    command("SET", "cut", "a\r\nb")
    + command("GET", "cut")
    + b"*0\r\nPING inline\r\n"
    + command("NONSENSE", "1")
    + command("MGET", "cut", "none", "cut")
    + command("CONFIG", "GET", "maxmemory")
    + command("DEL", "cut")
    + command("QUIT")
)


def answered(path: str, pieces: list[bytes], between: Callable[[], object]) -> bytes:
    """All replies to a conversation in pieces, versions aside; something happens between two of them."""
    with Wire(path) as wire:
        for piece in pieces:
            wire.send(piece)
            between()
        wire.half_close()
        return VERSION.sub(b"VERSION", wire.rest())


@pytest.mark.parametrize("conversation", [PIPE, RESP], ids=["pipe", "resp"])
def test_bytes_may_be_cut_anywhere(node: Served, conversation: bytes) -> None:
    """At each byte, and at every byte: the replies are the same."""
    with Wire(node.socket).keep() as other:
        whole = answered(node.socket, [conversation], lambda: None)
        assert len(whole) > 100

        def has_been_read() -> None:
            """What was sent before this answer has been read."""
            assert other.send(b"ping||\n").line() == b"pong"

        for cut in range(1, len(conversation)):
            pieces = [conversation[:cut], conversation[cut:]]
            assert answered(node.socket, pieces, has_been_read) == whole, conversation[:cut]
        single = [conversation[at : at + 1] for at in range(len(conversation))]
        assert answered(node.socket, single, has_been_read) == whole


REQUESTS = {
    "pipe": [
        *(b"write|name=cut%d|v\n" % number for number in range(3)),
        *(b"read|name=cut%d frame=1|\n" % number for number in range(3)),
        b"write|name=cut1 length=5|a\nb|c\n",
        b"write|name=cut2 length=70000|" + b"x" * 70_000 + b"\n",
        b"write|name=cut2 length=3000|" + b"y" * 3_000,
        b"write|name=cut1 if=absent|w\n",
        b"write|name=cut1 ttl=oops|w\n",
        b"write|name=" + b"k" * 5_000 + b"|w\n",
        b"write||x|y|z\n",
        b"nonsense|name=a length=3|a\nb\n",
        b"delete|name=cut0|\r\n",
        b"wait|name=cut9 timeout=0.001|\n",
        b"state||\n",
        b"\n\r\n",
        b"ping\n",
        b"ping|id=3 frame=1|\n",
        b"read|name=cut1 junk|what\n",
        b"write|name=a length=x|x\n",
        b"read|name=%zz|\n",
    ],
    "resp": [
        *(command("SET", f"cut{number}", number) for number in range(3)),
        *(command("GET", f"cut{number}") for number in range(3)),
        command("SET", "cut1", b"a\r\n*1\r\n"),
        command("SET", "cut2", b"x" * 70_000),
        command("APPEND", "cut2", b"y" * 40_000),
        command("MGET", "cut0", "cut1", "cut2"),
        command("SET", "k" * 5_000, 1),
        command("NONSENSE", "a"),
        command("INFO", "cluster"),
        b"*0\r\n",
        b"\r\n",
        b"PING inline\r\n",
        b'SET cut1 "quoted \\x41"\n',
        b"*1\r\n$-1\r\n",
        b'PING "unbalanced\r\n',
    ],
}
# A line end was cut in two; a mistake while replies were waiting to be taken.
FAILED_SEEDS = [126, 152, 195, 392, 439]
FIRST = {"pipe": b"keep||\n", "resp": command("DEL", "cut0", "cut1", "cut2")}


@pytest.mark.parametrize("protocol", ["pipe", "resp"])
@pytest.mark.parametrize("seed", [*range(12), *FAILED_SEEDS])
def test_any_conversation_may_be_cut_anywhere(node: Served, seed: int, protocol: str) -> None:
    """Right and wrong requests in any order, in random pieces: the same replies, and the same end."""
    chance = random.Random(seed)
    conversation = FIRST[protocol] + b"".join(chance.choices(REQUESTS[protocol], k=12))
    replies = []
    with Wire(node.socket).keep() as other:

        def has_been_read() -> None:
            """What was sent before this answer has been read."""
            assert other.send(b"ping||\n").line() == b"pong"

        for turn in range(4):
            for number in range(3):
                once(node.socket, b"delete|name=cut%d|\n" % number)
            cuts = sorted(chance.sample(range(len(conversation)), k=4 * turn))
            ends = [*cuts, len(conversation)]
            pieces = [conversation[start:end] for start, end in zip([0, *cuts], ends, strict=True)]
            replies.append(received(node.socket, pieces, has_been_read))

    assert replies[1:] == replies[:1] * 3


@pytest.mark.parametrize("keep", [b"", b"keep||\n"], ids=["alone", "kept"])
def test_a_line_end_may_be_cut(node: Served, keep: bytes) -> None:
    """Between its two bytes, if it has two."""
    with Wire(node.socket).keep() as other:

        def has_been_read() -> None:
            assert other.send(b"ping||\n").line() == b"pong"

        # Alone, it may have been answered and closed before its end is sent, or while it is.
        pieces = [keep + b"exists|name=line-end|\r", b"\n"]
        assert received(node.socket, pieces, has_been_read).endswith(b"ok|exists=0\n")


def received(path: str, pieces: list[bytes], between: Callable[[], object]) -> bytes:
    """As `answered`, of a conversation that may be ended by the other side before all of it is sent."""
    with Wire(path) as wire:
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                wire.send(piece)
                between()
            wire.half_close()
        found = b""
        with suppress(ConnectionResetError):
            while more := wire.socket.recv(1 << 16):
                found += more
        return VERSION.sub(b"VERSION", found)


@pytest.mark.parametrize("seed", range(4))
def test_large_values_may_be_cut_anywhere(node: Served, seed: int) -> None:
    """Around the sizes at which values are kept in another way, and buffers end."""
    chance = random.Random(seed)
    sizes = [
        chance.choice([0, 1, 32_767, 32_768, 32_769, 65_535, 65_536, 65_537, 200_000]) for _ in range(20)
    ]
    values = [chance.randbytes(size) for size in sizes]
    if seed % 2:
        wire_form = b"keep|frame=1|\n" + b"".join(
            b"write|name=big-%d-%d length=%d|%b\n" % (seed, index, len(value), value)
            for index, value in enumerate(values)
        )
    else:
        wire_form = b"".join(
            command("SET", f"big-{seed}-{index}", value) for index, value in enumerate(values)
        )
    with Wire(node.socket) as wire:
        at = 0
        while at < len(wire_form):
            size = chance.choice([1, 2, 100, 1_000, 32_768, 100_000])
            wire.send(wire_form[at : at + size])
            at += size
        wire.half_close().rest()

    with Wire(node.socket) as wire:
        for index, value in enumerate(values):
            assert wire.ask("GET", f"big-{seed}-{index}") == b"$%d\r\n%b\r\n" % (len(value), value)


def sending(wire: Wire, data: bytes) -> threading.Thread:
    """Sends from a thread of its own, then half-closes: who does not read meanwhile might wait for ever."""
    thread = threading.Thread(target=lambda: wire.send(data).half_close())
    thread.start()
    return thread


def test_thousands_of_resp_commands_in_one_write(node: Served) -> None:
    """All answered, in order, and the half-close behind them loses none."""
    count = 50_000
    with Wire(node.socket) as wire:
        thread = sending(wire, b"".join(command("ECHO", number) for number in range(count)))
        replies = wire.rest()
        thread.join()

    assert replies == b"".join(b"$%d\r\n%d\r\n" % (len(str(number)), number) for number in range(count))


def test_thousands_of_pipe_commands_in_one_write(node: Served) -> None:
    """The same for the other protocol, framed."""
    count = 20_000
    requests = b"".join(b"write|name=many-%d id=%d|x\n" % (at % 100, at + 1) for at in range(count))
    with Wire(node.socket) as wire:
        thread = sending(wire, b"keep|frame=1|\n" + requests)
        ids = [wire.framed().params.get("id") for _ in range(count + 1)]
        assert wire.rest() == b""
        thread.join()

    assert ids == [None, *map(str, range(1, count + 1))]


def test_replies_far_larger_than_any_buffer_survive_a_half_close(node: Served) -> None:
    """The connection ends when the last byte is sent, not when the last request is read."""
    value = random.Random(5).randbytes(300_000)
    with Wire(node.socket) as wire:
        assert wire.ask("SET", "half-close", value) == b"+OK\r\n"
        wire.send(command("GET", "half-close") * 200).half_close()
        for _ in range(200):
            assert wire.reply() == b"$300000\r\n%b\r\n" % value
        assert wire.rest() == b""


def fill_up(wire: Wire, request: bytes, *, seconds: float = 1) -> int:
    """Sends one request again and again until the other side reads no more; how many bytes that took."""
    wire.socket.settimeout(seconds)  # whoever still reads is quicker
    sent = 0
    for _ in range(1_000):
        try:
            sent += wire.socket.send(request * 1_000)
        except TimeoutError:
            return sent
    raise AssertionError(f"still reading after {sent} bytes")


def quick(node: Served) -> None:
    """Others are served as if nothing was."""
    taken = []
    with Wire(node.socket) as wire:
        for _ in range(500):
            start = time.perf_counter()
            assert wire.ask("PING") == b"+PONG\r\n"
            taken.append(time.perf_counter() - start)

    assert statistics.median(taken) < 0.005
    assert max(taken) < 1


@pytest.mark.parametrize("size", [10, 10_000, 1_000_000])
def test_a_client_that_never_reads_costs_little_and_delays_nobody(node: Served, size: int) -> None:
    """Its replies are not made before it takes those it has; then all come."""
    value = b"v" * size
    with Wire(node.socket) as wire:
        wire.ask("SET", "unread", value)
    before = resident(node.process.pid)
    request = command("GET", "unread")
    with Wire(node.socket) as greedy:
        sent = fill_up(greedy, request)
        quick(node)
        assert resident(node.process.pid) - before < 60_000_000  # limits.max_request and limits.max_output

        greedy.socket.settimeout(20)
        expected = b"$%d\r\n%b\r\n" % (size, value)
        for _ in range(min(sent // len(request), 100_000_000 // size, 20_000)):
            assert greedy.exactly(len(expected)) == expected


MISTAKES = {"resp": b"*1\r\n$-1\r\n", "pipe": b"write|name=a length=x|"}


@pytest.mark.parametrize("protocol", MISTAKES)
def test_a_mistake_in_a_long_pipeline_is_told(node: Served, protocol: str) -> None:
    """Behind all the replies before it, to a client that sends everything before it reads."""
    value = b"v" * 70_000
    once(node.socket, b"write|name=mistake length=70000|" + value)
    read = command("GET", "mistake") if protocol == "resp" else b"read|name=mistake|\n"
    with Wire(node.socket) as wire:
        if protocol == "pipe":
            wire.keep()
        wire.send(read * 10 + MISTAKES[protocol] + b"z" * 800_000)
        for _ in range(10):
            if protocol == "resp":
                assert wire.line() == b"$70000\r"
            assert wire.exactly(len(value)) == value
            if protocol == "resp":
                assert wire.line() == b"\r"
        assert wire.line().startswith((b"-ERR Protocol error", b"error|code=bad_param|"))


@pytest.mark.parametrize("protocol", MISTAKES)
def test_who_does_not_read_after_a_mistake_is_forgotten(serve: Serve, protocol: str) -> None:
    """Nothing more will be said to it, so it is not kept for ever."""
    node = serve().ready()
    once(node.socket, b"write|name=mistake length=700000|" + b"v" * 700_000)
    read = command("GET", "mistake") if protocol == "resp" else b"keep||\nread|name=mistake|\n"
    with Wire(node.socket) as wire:
        wire.send(read + MISTAKES[protocol])
        until(lambda: connections(node) == 1, "the client to be forgotten")


def test_many_clients_that_never_read(serve: Serve) -> None:
    """Each is paused by itself, at the limits that the configuration names."""
    node = serve({"limits": {"max_request": "1MiB", "max_output": "1MiB"}}).ready()
    with Wire(node.socket) as wire:
        wire.ask("SET", "unread", b"v" * 10_000)
    before = resident(node.process.pid)
    wires = [Wire(node.socket) for _ in range(50)]
    for wire in wires:
        fill_up(wire, command("GET", "unread"), seconds=0.02)
    quick(node)
    assert resident(node.process.pid) - before < 50 * 4_000_000
    for wire in wires:
        wire.socket.close()

    until(lambda: connections(node) == 1, "the others to be forgotten")
    quick(node)


def test_one_command_with_an_enormous_reply_costs_little(node: Served) -> None:
    """A short request must not make the node hold gigabytes that nobody reads."""
    with Wire(node.socket) as wire:
        wire.ask("SET", "amplified", b"v" * 30_000)
    before = resident(node.process.pid)
    with Wire(node.socket) as greedy:
        greedy.send(command("MGET", *["amplified"] * 10_000))
        greedy.exactly(10)
        quick(node)

        assert resident(node.process.pid) - before < 100_000_000


def connections(node: Served) -> int:
    """How many clients there are, the asking one included."""
    found = re.search(rb'"connections": (\d+)', once(node.socket, b"status||\n"))
    assert found
    return int(found[1])


def memory(node: Served) -> int:
    """Bytes that the node accounts for."""
    found = re.search(rb'"memory": (\d+)', once(node.socket, b"status||\n"))
    assert found
    return int(found[1])


@pytest.mark.parametrize("request_", [PIPE, RESP], ids=["pipe", "resp"])
def test_clients_may_vanish_at_every_byte(node: Served, request_: bytes) -> None:
    """Nothing of them is left, not even the memory that was set aside for a value on its way."""
    for cut in range(len(request_)):
        with Wire(node.socket) as wire:
            wire.send(request_[:cut])

    until(lambda: connections(node) == 1, "the others to be forgotten")


def test_a_value_half_way_gives_its_memory_back(node: Served) -> None:
    """It is set aside when the length is known, and counted."""
    before = memory(node)
    wires = [Wire(node.socket) for _ in range(10)]
    for index, wire in enumerate(wires):
        half = b"x" * 500_000
        if index % 2:
            wire.send(b"write|name=half length=1000000|" + half)
        else:
            wire.send(b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$1000000\r\n" + half)
    until(lambda: memory(node) >= before + 10_000_000, "what is on its way to be counted")
    for wire in wires:
        wire.socket.close()

    until(lambda: memory(node) == before, "the memory to be given back")
    assert once(node.socket, b"exists|name=half|\n") == b"ok|exists=0\n"


def test_a_value_that_is_replaced_while_it_is_read(node: Served) -> None:
    """Its reader gets all of the old one; it is not torn, and not kept afterwards."""
    old, new = b"o" * 20_000_000, b"n" * 20_000_000
    with Wire(node.socket) as reader, Wire(node.socket) as writer:
        writer.ask("SET", "replaced", old)
        reader.send(command("GET", "replaced")).exactly(1_000)
        assert writer.ask("SET", "replaced", new) == b"+OK\r\n"
        assert writer.ask("GET", "replaced") == b"$20000000\r\n%b\r\n" % new
        assert reader.exactly(20_000_000 + 13 - 1_000) == (b"$20000000\r\n" + old + b"\r\n")[1_000:]
        assert writer.ask("DEL", "replaced") == b":1\r\n"


WORDS = {
    "pipe": b"write| read| keep||\n name=a \tlength= 9 | \n %0 id=1 frame=1".split(b" "),
    "resp": b'* $ 3 -1 \r\n GET SET a " 99999999 *2\r\n$3\r\nGET\r\n$1\r\na\r\n'.split(b" "),
}


@pytest.mark.parametrize(("protocol", "first"), [("pipe", b"keep||\n"), ("resp", b"PING\r\n")])
def test_any_bytes_are_answered_or_refused(node: Served, protocol: str, first: bytes) -> None:
    """None end the node, none make it grow, and each connection ends in the end."""
    chance = random.Random(6)
    before = resident(node.process.pid)
    for _ in range(1_500):
        words = chance.choices([*WORDS[protocol], chance.randbytes(5)], k=chance.randrange(1, 60))
        with Wire(node.socket) as wire:
            try:
                wire.send(first + b"".join(words)).half_close()
                assert wire.rest() != b""
            except (BrokenPipeError, ConnectionResetError):
                continue  # refused with some of it unread
    quick(node)

    assert node.process.poll() is None
    assert resident(node.process.pid) - before < 30_000_000


def test_a_full_node_refuses_writes_and_goes_on_reading_and_deleting(serve: Serve) -> None:
    """Nothing that was accepted is evicted; room that is made can be used."""
    node = serve({"members": [{"max_memory": "4MiB"}]}).ready()
    stored = 0
    with Wire(node.socket) as wire:
        for number in range(100_000):
            reply = wire.ask("SET", f"k{number}", b"v" * 1_000)
            if reply != b"+OK\r\n":
                break
            stored += 1
        assert reply.startswith(b"-OOM "), reply
        assert b"max_memory" in reply
        assert 2_000 < stored < 4_200
        more = b"v" * 100_000
        for words in (("APPEND", "k0", more), ("MSET", "new", more), ("SETEX", "new", "9", more)):
            assert wire.ask(*words).startswith(b"-OOM "), words
        assert once(node.socket, b"write|name=new|" + b"v" * 1_000 + b"\n").startswith(
            b"error|code=no_space|"
        )

        assert wire.ask("DBSIZE") == b":%d\r\n" % stored
        for number in range(stored):
            assert wire.ask("STRLEN", f"k{number}") == b":1000\r\n"
        assert wire.ask("DEL", "k0", "k1", "k2") == b":3\r\n"
        assert wire.ask("SET", "new", b"v" * 1_000) == b"+OK\r\n"
        assert wire.ask("FLUSHDB") == b"+OK\r\n"
        assert wire.ask("SET", "new", b"v" * 1_000_000) == b"+OK\r\n"


def test_a_full_node_lets_keys_end(serve: Serve) -> None:
    """EXPIRE and its kin free memory in the end: Redis allows them, too."""
    node = serve({"members": [{"max_memory": "4MiB"}]}).ready()
    with Wire(node.socket) as wire:
        for number in range(100_000):
            if wire.ask("SET", f"k{number}", b"v" * 1_000) != b"+OK\r\n":
                break
        for number in range(100_000):
            if wire.ask("SET", f"s{number}", b"") != b"+OK\r\n":
                break

        assert wire.ask("EXPIRE", "k1", 100) == b":1\r\n"
        assert wire.ask("PEXPIRE", "k2", 1) == b":1\r\n"
        assert wire.ask("GETEX", "k3", "EX", 100).startswith(b"$1000\r\n")
        assert wire.ask("PERSIST", "k1") == b":1\r\n"
        assert wire.ask("GETDEL", "k1").startswith(b"$1000\r\n")


def test_large_values_on_their_way_stay_within_max_memory(serve: Serve) -> None:
    """Many at once: those for which there is no room are refused at once, and skipped."""
    node = serve({"members": [{"max_memory": "50MiB"}]}).ready()
    before = resident(node.process.pid)
    wires = [Wire(node.socket) for _ in range(20)]
    for index, wire in enumerate(wires):
        wire.send(b"keep||\nwrite|name=large-%d length=10000000|" % index)
        wire.send(b"x" * 5_000_000)
    assert resident(node.process.pid) - before < 100_000_000
    for wire in wires:
        wire.send(b"x" * 5_000_000 + b"\nping||\n")
    written = 0
    for wire in wires:
        with wire:
            assert wire.line() == b"ok|"
            answer = wire.line()
            assert answer.startswith((b"ok|version=", b"error|code=no_space|"))
            written += answer.startswith(b"ok|")
            assert wire.line() == b"pong"

    assert written == 5
    assert resident(node.process.pid) - before < 100_000_000


def test_a_reset_is_an_end_like_any_other(serve: Serve) -> None:
    """Over TCP a client can take back what it has not read."""
    node = serve({"members": [{"tcp": {"port": 0}}]}).ready()
    with Wire(node.socket) as wire:
        host, port = wire.send(b"membership||\n").rest().decode().rsplit("tcp://", 1)[1].strip().split(":")
        for _ in range(100):
            with Wire((host, int(port))) as client:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.send(command("PING") * 100 + b"*2\r\n$4\r\nECHO\r\n$100\r\nhalf")

    until(lambda: connections(node) == 1, "the others to be forgotten")
