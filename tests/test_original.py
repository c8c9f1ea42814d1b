"""Where the first turbopump broke, and that ours does not: one test for each.

Its crashes and corruptions are listed in its own history: a value was cut at its second pipe and the rest
was run as a command; `write||x` and a bad number ended the daemon; so did a client that left before its
reply; a header had to arrive whole; and two idle clients blocked all others.
"""

import itertools
import random
import socket
import struct

import pytest

from conftest import Served
from wire import Wire, once, until

NUMBERS = itertools.count()


@pytest.fixture
def name() -> str:
    """A key that no other test uses."""
    return f"original-{next(NUMBERS)}"


def ask(node: Served, request: str) -> bytes:
    """The answer to one command in a connection of its own."""
    return once(node.socket, request.encode() + b"\n")


def lives(node: Served) -> bool:
    """Whether the node is the same process and answers."""
    return node.process.poll() is None and ask(node, "ping||") == b"pong\n"


def test_a_value_is_not_cut_at_its_second_pipe(node: Served, name: str) -> None:
    """A 1 MiB random value was stored as 8177 bytes."""
    value = random.Random(1).randbytes(1 << 20)
    assert value.count(b"|") > 1_000
    with Wire(node.socket) as wire:
        wire.send(f"write|name={name} length={len(value)}|".encode() + value)
        assert wire.rest().startswith(b"ok|version=")
    assert ask(node, f"read|name={name}|") == value

    ask(node, f"write|name={name}|a|b|c||d|")
    assert ask(node, f"read|name={name}|") == b"a|b|c||d|"


@pytest.mark.parametrize("size", [8_170, 8_192, 8_193, 16_384, 65_536])
def test_a_value_of_text_with_pipes_is_whole_at_every_size(node: Served, name: str, size: int) -> None:
    """The old server's receive buffer had 8192 bytes: what lay beyond was parsed anew."""
    value = (f"write|name={name}-injected|EVIL|" * (size // 20))[:size]

    assert ask(node, f"write|name={name}|{value}").startswith(b"ok|version=")
    assert ask(node, f"read|name={name}|") == value.encode()


def test_a_piece_of_a_value_is_never_run_as_a_command(node: Served, name: str) -> None:
    """A second chunk `write|name=inj|EVIL` created the key `inj`."""
    injected = f"{name}-injected"
    evil = f"write|name={injected}|EVIL\n".encode()
    with Wire(node.socket) as wire:
        wire.send(f"write|name={name} length={2 * len(evil)}|".encode())
        for _ in range(2):
            assert lives(node)  # and the piece before has been read by now
            wire.send(evil)
        assert wire.rest().startswith(b"ok|version=")

    assert ask(node, f"read|name={name}|") == evil * 2
    assert ask(node, f"exists|name={injected}|") == b"ok|exists=0\n"

    with Wire(node.socket) as wire:
        wire.send(f"write|name={name}|first\n".encode() + evil).half_close()
        assert wire.rest().startswith(b"error|code=multiline|")
    assert ask(node, f"exists|name={injected}|") == b"ok|exists=0\n"


def test_a_write_without_a_name_is_refused(node: Served) -> None:
    """`write||x` was a segmentation fault."""
    assert ask(node, "write||x").startswith(b"error|code=missing_param|")
    assert lives(node)


@pytest.mark.parametrize("param", ["n=abc", "ttl=abc", "length=abc", "id=abc", "ttl=", "length=-1", "i=99x"])
def test_a_bad_number_is_refused(node: Served, name: str, param: str) -> None:
    """`n=abc` was an uncaught exception."""
    answer = ask(node, f"write|name={name} {param}|x")

    assert answer.startswith((b"error|code=bad_param|", b"error|code=syntax|"))
    assert lives(node)
    assert ask(node, f"exists|name={name}|") == b"ok|exists=0\n"


@pytest.mark.parametrize("request_", ["nonsense", "", "\0\0\0", "||||", "=", "read", "read|", "unknown||x"])
def test_what_it_cannot_read_it_answers(node: Served, request_: str) -> None:
    """Unknown actions were closed without a word; from peers they were a crash."""
    with Wire(node.socket) as wire:
        wire.send(request_.encode() + b"\n").half_close()
        answer = wire.rest()

    assert answer.startswith(b"error|code=") or not request_
    assert lives(node)


def test_a_header_may_come_in_many_pieces(node: Served, name: str) -> None:
    """Both pipes had to be in the first recv, or the socket was closed."""
    request = f"write|name={name}|in pieces\n".encode()
    with Wire(node.socket) as wire:
        for byte in request:
            wire.send(bytes([byte]))
            assert lives(node)
        assert wire.rest().startswith(b"ok|version=")

    assert ask(node, f"read|name={name}|") == b"in pieces"


def test_a_client_may_leave_before_its_reply(node: Served, name: str) -> None:
    """SIGPIPE killed the daemon; a reset, which TCP and linger send, is no better an end."""
    value = b"x" * 4_000_000
    with Wire(node.socket) as wire:
        wire.send(f"write|name={name} length={len(value)}|".encode() + value)
        assert wire.rest().startswith(b"ok|")
    for _ in range(200):
        with Wire(node.socket) as wire:
            wire.send(f"read|name={name}|\n".encode())
    for _ in range(50):
        with Wire(node.socket) as wire:
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.send(f"read|name={name}|\n".encode()).exactly(10)

    assert lives(node)
    assert ask(node, f"read|name={name}|") == value


@pytest.mark.parametrize("count", [2, 3, 500])
def test_idle_clients_block_nobody(node: Served, name: str, count: int) -> None:
    """Two threads served one connection each: two idle writers were the end of service."""
    idle = [Wire(node.socket).send(f"write|name={name}".encode()) for _ in range(count)]
    try:
        assert lives(node)
        assert ask(node, f"write|name={name}|others").startswith(b"ok|version=")
    finally:
        for wire in idle:
            wire.socket.close()


def test_many_clients_at_a_time_are_all_served(node: Served, name: str) -> None:
    """Half a request each, then the other half, in another order."""
    wires = [Wire(node.socket) for _ in range(300)]
    for number, wire in enumerate(wires):
        wire.send(f"write|name={name}-{number}|val".encode())
    for wire in reversed(wires):
        wire.send(b"ue\n")
    for wire in wires:
        with wire:
            assert wire.rest().startswith(b"ok|version=")

    assert len(ask(node, f"list|prefix={name}-|").splitlines()) == 300


def test_commands_and_reads_of_the_socket_have_nothing_to_do_with_each_other(node: Served, name: str) -> None:
    """One recv was one command: here many come at once, and one comes in many."""
    with Wire(node.socket).keep() as wire:
        wire.send(f"write|name={name}|1\nread|name={name}|\nping||\n".encode() * 100)
        for _ in range(100):
            assert wire.line().startswith(b"ok|version=")
            assert wire.exactly(1) == b"1"
            assert wire.line() == b"pong"


def test_an_error_is_never_taken_for_an_empty_value(node: Served, name: str) -> None:
    """A missing key, no name and an empty value all read as nothing."""
    ask(node, f"write|name={name}|")

    assert ask(node, f"read|name={name}|") == b""
    assert ask(node, f"read|name={name}-missing|").startswith(b"error|code=not_found|")
    assert ask(node, "read||").startswith(b"error|code=missing_param|")


def test_a_write_is_answered(node: Served, name: str) -> None:
    """There was no status line, ever: a client could not know that its value was taken."""
    assert ask(node, f"write|name={name}|x").startswith(b"ok|version=")


def test_a_client_that_leaves_within_its_value_writes_nothing(node: Served, name: str) -> None:
    """The end of the connection was the end of the value: half a file was a file."""
    for framing, half in ((" length=1000", b"half"), ("", b"half"), (" length=500000", b"h" * 250_000)):
        with Wire(node.socket) as wire:
            wire.send(f"write|name={name}{framing}|".encode() + half)
        assert lives(node)
        assert ask(node, f"exists|name={name}|") == b"ok|exists=0\n", framing


def test_a_name_that_looks_like_a_path_stays_a_name(node: Served) -> None:
    """The later one's `name=../../x` wrote outside of the store."""
    ask(node, "write|name=../../x|y")

    assert ask(node, "read|name=../../x|") == b"y"
    assert ask(node, "exists|name=x|") == b"ok|exists=0\n"


def test_idle_connections_that_vanish_are_forgotten(node: Served) -> None:
    """Per-peer structures never expired there."""
    wires = [Wire(node.socket).send(b"write|na") for _ in range(100)]
    for wire in wires:
        wire.socket.close()

    until(lambda: b'"connections": 1,' in ask(node, "status||"), "the others to be forgotten")
