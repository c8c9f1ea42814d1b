"""The pipe protocol refuses what is wrong: one readable line with its code, and the connection lives on.

It lives on wherever the next request's beginning is known; where it is not, the refusal is the last line.
"""

import os
import random
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import Serve, Served
from wire import Wire, once, resident

LIMITS = {"max_key": 16, "max_value": 100_000, "max_line": 1024}
LINE = re.compile(rb"error\|code=([a-z_]+)\|([^\n]*)\n")
CONFIG = {
    "limits": LIMITS,
    "keyspaces": [
        {"prefix": "fixed/", "writes": "immutable"},
        {"prefix": "small/", "max_memory": 10_000},
    ],
}

# A request, and the code it is refused with; on a kept connection, so that the value's end is its newline.
FRAMED = [
    (b"\xff\xfe||\n", "unknown_command"),
    (b"nonsense||\n", "unknown_command"),
    (b"nonsense|name=a|a value\n", "unknown_command"),
    (b"nonsense|name=a length=3|a\nb\n", "unknown_command"),
    (b"nonsense\n", "unknown_command"),
    (b"read\n", "missing_param"),
    (b"read||\n", "missing_param"),
    (b"write||x\n", "missing_param"),
    (b"delete||\n", "missing_param"),
    (b"exists||\n", "missing_param"),
    (b"versions||\n", "missing_param"),
    (b"wait||\n", "missing_param"),
    (b"auth||\n", "missing_param"),
    (b"write|name=|x\n", "bad_key"),
    (b"read|name=|\n", "bad_key"),
    (b"write|name=12345678901234567|x\n", "bad_key"),
    (b"read|name=12345678901234567|\n", "bad_key"),
    (b"delete|name=12345678901234567|\n", "bad_key"),
    (b"exists|name=12345678901234567|\n", "bad_key"),
    (b"wait|name=12345678901234567 timeout=1|\n", "bad_key"),
    (b"write|name=%|x\n", "bad_param"),
    (b"write|name=%2|x\n", "bad_param"),
    (b"write|name=%zz|x\n", "bad_param"),
    (b"read|name=a%%20|\n", "bad_param"),
    (b"write|name=a name=b|x\n", "bad_param"),
    (b"write|name=a ttl=|x\n", "bad_param"),
    (b"write|name=a ttl=abc|x\n", "bad_param"),
    (b"write|name=a ttl=0|x\n", "bad_param"),
    (b"write|name=a ttl=-1|x\n", "bad_param"),
    (b"write|name=a ttl=nan|x\n", "bad_param"),
    (b"write|name=a ttl=inf|x\n", "bad_param"),
    (b"write|name=a ttl=1e300|x\n", "bad_param"),
    (b"write|name=a if=maybe|x\n", "bad_param"),
    (b"write|name=a if_version=1|x\n", "bad_param"),
    (b"write|name=a if_version=018f3c2a9b7c0001_9e3779b97f4a7c15|x\n", "bad_param"),
    (b"write|name=a if=absent if_version=018f3c2a9b7c0001-9e3779b97f4a7c15|x\n", "bad_param"),
    (b"delete|name=a if_version=|\n", "bad_param"),
    (b"write|name=a id=x|x\n", "bad_param"),
    (b"write|name=a id=-1|x\n", "bad_param"),
    (b"write|name=a id=18446744073709551616|x\n", "bad_param"),
    (b"write|name=a frame=yes|x\n", "bad_param"),
    (b"list|limit=-1|\n", "bad_param"),
    (b"list|limit=many|\n", "bad_param"),
    (b"list|cursor=x|\n", "bad_param"),
    (b"list|cursor=99999999999999999999999|\n", "bad_param"),
    (b"wait|name=a timeout=soon|\n", "bad_param"),
    (b"wait|name=a timeout=-1|\n", "bad_param"),
    (b"write|a|x\n", "syntax"),
    (b"write|nmae=a|x\n", "syntax"),
    (b"write|name=a n=3|x\n", "syntax"),
    (b"write|name=a\n", "syntax"),
    (b"write\n", "syntax"),
    (b"ping|name=a|\n", "syntax"),
    (b"read|name=a|what is this\n", "syntax"),
    (b"ping||x|y\n", "syntax"),
    (b"write|name=a length=100001|" + b"x" * 100_001 + b"\n", "value_too_long"),
    (b"write|name=a|" + b"x" * 1025 + b"\n", "line_too_long"),
    (b"write|name=a|" + b"x" * 200_000 + b"\n", "line_too_long"),
    (b"read|name=absent|\n", "not_found"),
    (b"versions|name=absent|\n", "not_found"),
    (b"wait|name=absent timeout=0.01|\n", "timeout"),
    (b"write|name=there if=absent|x\n", "exists"),
    (b"write|name=absent if=present|x\n", "missing"),
    (b"write|name=there if_version=018f3c2a9b7c0001-9e3779b97f4a7c15|x\n", "version_mismatch"),
    (b"delete|name=there if_version=018f3c2a9b7c0001-9e3779b97f4a7c15|\n", "version_mismatch"),
    (b"delete|name=absent if_version=018f3c2a9b7c0001-9e3779b97f4a7c15|\n", "missing"),
    (b"write|name=fixed/a|other\n", "immutable"),
    (b"write|name=small/b length=50000|" + b"x" * 50_000 + b"\n", "no_space"),
]

# Where nobody can know what belongs to the value, the refusal ends the connection.
UNFRAMED = [
    (b"write|name=a length=abc|x\n", "bad_param"),
    (b"write|name=a length=-1|x\n", "bad_param"),
    (b"write|name=a length=1.5|x\n", "bad_param"),
    (b"write|name=a length=|x\n", "bad_param"),
    (b"write|name=a length=%zz|x\n", "bad_param"),
    (b"write|name=a length=99999999999999999999|x\n", "bad_param"),
    (b"write|name=" + b"k" * 10_000, "line_too_long"),
    (b"x" * 10_000, "line_too_long"),
]

# Alone in its connection, a value has one line, and with a length exactly that.
ALONE = [
    (b"write|name=a|one\ntwo\n", "multiline"),
    (b"write|name=a|one\ntwo", "multiline"),
    (b"write|name=a|one\n\n", "multiline"),
    (b"write|name=a length=3|abcd\n", "bad_length"),
    (b"write|name=a length=3|abc\n\n", "bad_length"),
    (b"write|name=a length=5|abcd", "bad_length"),
    (b"write|name=a length=5|", "bad_length"),
    (b"write|name=a length=eof|" + b"x" * 100_001, "value_too_long"),
]


@pytest.fixture(scope="module")
def strict() -> Iterator[Served]:
    """A node with low limits, some keys, and rules for some prefixes."""
    path = Path(tempfile.mkdtemp(prefix="tp-", dir="/tmp"))
    served = Served(path, CONFIG, ())
    try:
        once(served.ready().socket, b"write|name=there|x\n")
        once(served.socket, b"write|name=fixed/a|x\n")
        yield served
    finally:
        served.close()
        shutil.rmtree(path)


def short(request: bytes) -> str:
    """A request as the name of a test."""
    return request[:40].decode(errors="replace").strip()


def nothing_was_written(node: Served) -> bool:
    """Whether the keys are as they were."""
    listed = once(node.socket, b"list||\n").splitlines()
    return sorted(listed) == [b"fixed/a", b"there"] and once(node.socket, b"read|name=there|\n") == b"x"


@pytest.mark.parametrize(("request_", "code"), FRAMED, ids=[short(request) for request, _ in FRAMED])
def test_a_refused_request_does_not_end_a_kept_connection(strict: Served, request_: bytes, code: str) -> None:
    """One line, its code, a text; what follows is answered as if nothing had been."""
    with Wire(strict.socket).keep() as wire:
        wire.send(request_ + b"ping||\n")
        found = LINE.fullmatch(wire.line() + b"\n")
        assert found
        assert found[1].decode() == code
        assert len(found[2].decode()) > 10

        assert wire.line() == b"pong"
    assert nothing_was_written(strict)


@pytest.mark.parametrize(("request_", "code"), FRAMED, ids=[short(request) for request, _ in FRAMED])
def test_a_refusal_can_be_framed(strict: Served, request_: bytes, code: str) -> None:
    """The same, for programs; sent a byte at a time up to the value."""
    with Wire(strict.socket).keep(frame=True) as wire:
        for byte in request_[:60]:
            wire.send(bytes([byte]))
        wire.send(request_[60:] + b"ping|id=2|\n")

        refused, pong = wire.framed(), wire.framed()
        assert (refused.status, refused.code) == ("error", code)
        assert (pong.status, pong.params["id"], pong.body) == ("ok", "2", b"pong")


@pytest.mark.parametrize(("request_", "code"), FRAMED, ids=[short(request) for request, _ in FRAMED])
def test_a_refusal_alone_ends_its_connection(strict: Served, request_: bytes, code: str) -> None:
    """As any answer does that was not asked to keep it."""
    found = LINE.fullmatch(once(strict.socket, request_))

    assert found
    assert found[1].decode() == code
    assert nothing_was_written(strict)


@pytest.mark.parametrize(("request_", "code"), UNFRAMED, ids=[short(request) for request, _ in UNFRAMED])
def test_where_the_next_request_begins_is_unknown(strict: Served, request_: bytes, code: str) -> None:
    """The refusal is the last line: what follows could be anything, a value's bytes among it."""
    with Wire(strict.socket).keep() as wire:
        follows = b"write|name=there|overwritten\n" if request_.endswith(b"\n") else b""
        wire.send(request_ + follows)
        found = LINE.fullmatch(wire.rest())

        assert found
        assert found[1].decode() == code
    assert nothing_was_written(strict)


@pytest.mark.parametrize(("request_", "code"), ALONE, ids=[short(request) for request, _ in ALONE])
def test_a_value_alone_is_whole_or_refused(strict: Served, request_: bytes, code: str) -> None:
    """Never cut: not at its newline, not at its length."""
    with Wire(strict.socket) as wire:
        wire.send(request_).half_close()
        found = LINE.fullmatch(wire.rest())

        assert found
        assert found[1].decode() == code
    assert nothing_was_written(strict)


def test_a_parameter_that_stands_twice_is_refused(strict: Served) -> None:
    """Two programs that read one request must not read two lengths, or two ids."""
    twice = (
        b"name=a length=3 length=5",
        b"name=a id=1 id=2",
        b"name=a frame=1 frame=0",
        b"name=a ttl=1 ttl=2",
    )
    for params in twice:
        answer = once(strict.socket, b"write|" + params + b"|abc\n")

        assert b"code=bad_param" in answer, (params, answer)
        assert nothing_was_written(strict)


def test_a_limit_of_nothing_is_refused_or_goes_on(strict: Served) -> None:
    """A listing of no lines that says it is the whole one would be a lie."""
    answer = once(strict.socket, b"list|limit=0|\n")

    assert answer.startswith((b"error|code=bad_param|", b"next|cursor=")), answer


def test_a_refusal_does_not_depend_on_how_the_bytes_were_cut(strict: Served) -> None:
    """A value that is a little too long is refused in the same way, in one piece or in two."""
    request = b"write|name=a|" + b"x" * 1090 + b"\nping||\n"
    answers = []
    for cut in (0, 40, 1095):
        with Wire(strict.socket).keep() as wire:
            wire.send(request[:cut])
            once(strict.socket, b"ping||\n")  # answered after what was sent before has been read
            wire.send(request[cut:]).half_close()
            answers.append(wire.rest())

    assert len(set(answers)) == 1


def test_the_text_shows_what_was_wrong_and_no_more(strict: Served) -> None:
    """What a client sent comes back printable and short: no line of a log or terminal breaks."""
    wrong = b"write|name=a ttl=%0a%1b%5b2J" + b"z" * 4000 + b"|x\n"
    found = LINE.fullmatch(once(strict.socket, wrong))

    assert found
    assert found[2].decode().isprintable()
    assert len(found[2]) < 500
    assert b"seconds" in found[2]


def test_refusals_say_what_to_do(strict: Served) -> None:
    """The setting to raise, the command to use, the parameter to give."""
    for request, word in (
        (b"nonsense||\n", b"help||"),
        (b"write||x\n", b"name="),
        (b"write|name=12345678901234567|x\n", b"limits.max_key"),
        (b"write|name=a length=100001|" + b"x" * 100_001, b"limits.max_value"),
        (b"write|name=a|" + b"x" * 10_000, b"limits.max_line"),
        (b"write|name=a|one\ntwo\n", b"length="),
        (b"write|name=small/b length=50000|" + b"x" * 50_000, b"max_memory"),
        (b"write|nmae=a|x\n", b"name="),
        (b"write|name=fixed/a|y\n", b"delete"),
    ):
        assert word in once(strict.socket, request), request[:40]


def test_a_password_is_asked_for_over_tcp(serve: Serve) -> None:
    """Everything but auth, help and ping waits for it; a wrong one is refused."""
    node = serve({"members": [{"tcp": {"port": 0, "password": "open sesame"}}]}).ready()
    address = tcp_address(node)

    assert once(address, b"read|name=a|\n").startswith(b"error|code=auth_required|")
    assert once(address, b"write|name=a|x\n").startswith(b"error|code=auth_required|")
    assert once(address, b"status||\n").startswith(b"error|code=auth_required|")
    assert once(address, b"auth|password=sesame|\n").startswith(b"error|code=denied|")
    assert once(address, b"auth|password=open%20sesame|\nwrite|name=a|x\n").startswith(b"ok|\nok|version=")
    assert once(address, b"auth|password=open%20sesame|\nread|name=a|\n") == b"ok|\nx"
    with Wire(address) as wire:
        wire.send(b"keep||\n")
        assert wire.line().startswith(b"error|code=auth_required|")
    with Wire(address) as wire:
        wire.send(b"auth|password=open%20sesame|\nkeep|frame=1|\nread|name=a|\n")
        assert wire.line() == b"ok|"
        assert wire.framed().status == "ok"
        assert wire.framed().body == b"x"


def tcp_address(node: Served) -> tuple[str, int]:
    """Where a node listens on TCP."""
    found = re.search(rb"tcp://([0-9.]+):(\d+)", once(node.socket, b"membership||\n"))
    assert found
    return found[1].decode(), int(found[2])


def test_a_client_that_is_not_on_the_list_is_told(serve: Serve) -> None:
    """In the protocol that it speaks."""
    node = serve({"members": [{"guests": {"uids": [os.getuid() + 1]}}]}).ready()

    assert b"code=denied" in refused(node.socket, b"ping||\n")
    assert b"guest list" in refused(node.socket, b"*1\r\n$4\r\nPING\r\n")


def refused(path: str, request: bytes) -> bytes:
    """What a client reads that is turned away at the door, maybe before it has said anything."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(path)
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(request)
        return client.recv(4096)


def test_as_many_wait_as_the_configuration_allows(serve: Serve) -> None:
    """The next one is told `busy`, and may wait when one has been answered."""
    node = serve({"limits": {"max_waits": 1}}).ready()
    with Wire(node.socket) as first, Wire(node.socket).keep() as second:
        first.send(b"wait|name=a timeout=20|\n")
        once(node.socket, b"ping||\n")
        second.send(b"wait|name=b timeout=20|\n")
        assert second.line().startswith(b"error|code=busy|")

        once(node.socket, b"write|name=a|x\n")
        assert first.rest().startswith(b"ok|version=")
        second.send(b"wait|name=b timeout=0.01|\n")
        assert second.line().startswith(b"error|code=timeout|")


def test_a_long_wait_is_cut_to_the_configured_one(serve: Serve) -> None:
    """So that nobody is kept for ever."""
    node = serve({"limits": {"max_wait": 0.05}}).ready()

    assert once(node.socket, b"wait|name=a timeout=1000|\n").startswith(b"error|code=timeout|")
    assert once(node.socket, b"wait|name=a|\n").startswith(b"error|code=timeout|")


def test_nonsense_is_answered_or_refused(strict: Served) -> None:
    """Random bytes, random words of the protocol: the node lives, and its memory stays."""
    chance = random.Random(2)
    words = [
        b"write",
        b"read",
        b"|",
        b"|",
        b"=",
        b"name",
        b"length",
        b"eof",
        b"9",
        b"\n",
        b"%",
        b" ",
        b"a",
        b"keep",
    ]
    before = resident(strict.process.pid)
    for _ in range(2_000):
        request = b"".join(chance.choices(words, k=chance.randrange(1, 30)))
        if chance.random() < 0.3:
            request = chance.randbytes(chance.randrange(1, 200))
        with Wire(strict.socket) as wire:
            try:
                wire.send(request).half_close()
                wire.rest()
            except (BrokenPipeError, ConnectionResetError):
                continue  # refused before it was sent, or with some of it unread

    assert once(strict.socket, b"ping||\n") == b"pong\n"
    assert resident(strict.process.pid) < before + 20_000_000
