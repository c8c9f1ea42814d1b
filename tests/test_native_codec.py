"""`ClientCodec`: the client's half of the pipe protocol, against a real node and against nonsense."""

import os
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Served
from turbopump import ProtocolError
from turbopump._native import Answer, ClientCodec
from wire import resident

KEYS = st.binary(min_size=1, max_size=80)
VALUES = st.one_of(
    st.binary(max_size=300), st.sampled_from([b"\n", b"|", b"ok|length=3|abc\n", b"x" * 70_000])
)
PIECES = st.lists(st.integers(1, 50), min_size=1, max_size=10)
NAMES = st.sampled_from(["version", "cursor", "deleted", "exists", "a"])
COMMANDS = [
    "write",
    "read",
    "delete",
    "exists",
    "list",
    "local_list",
    "versions",
    "wait",
    "ping",
    "status",
    "help",
]


class Line:
    """A codec on a connection, which hands it what comes in pieces of any size."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(path)
        self.codec = ClientCodec()
        self.answers: list[Answer] = []
        self.socket.sendall(self.codec.hello())
        assert self.next([1]).id == 0

    def next(self, pieces: list[int]) -> Answer:
        """The next answer."""
        while not self.answers:
            received = self.socket.recv(1 << 16)
            assert received, "the connection ended"
            self.feed(received, pieces)
        return self.answers.pop(0)

    def feed(self, data: bytes, pieces: list[int]) -> None:
        """Hands it over in pieces of these sizes, over and over."""
        at, turn = 0, 0
        while at < len(data):
            size = pieces[turn % len(pieces)] * (1 if len(data) < 5_000 else 1_000)
            self.answers += self.codec.feed(data[at : at + size])
            at, turn = at + size, turn + 1

    def ask(
        self, pieces: list[int], command: str, params: dict[str, Any], value: bytes | None = None
    ) -> Answer:
        """The answer to a request, which carries its id."""
        number, data = self.codec.request(command, params, value)
        self.socket.sendall(data)
        answer = self.next(pieces)
        assert answer.id == number
        return answer


@pytest.fixture(scope="module")
def line(node: Served) -> Iterator[Line]:
    """A codec that talks to the node."""
    made = Line(node.socket)
    yield made
    made.socket.close()


@given(KEYS, VALUES, PIECES)
@settings(max_examples=200, deadline=None)
def test_any_key_and_value_come_back(line: Line, key: bytes, value: bytes, pieces: list[int]) -> None:
    """Written, read, listed and deleted, with the replies cut anywhere, a byte at a time included."""
    written = line.ask(pieces, "write", {"name": key}, value)
    assert written.code is None
    read = line.ask(pieces, "read", {"name": key})
    assert (read.code, read.body) == (None, value)
    assert read.params == {"version": written.params["version"]}

    listed = line.ask(pieces, "list", {"prefix": key, "limit": 1_000})
    assert quoted(key) in listed.body.splitlines()
    assert line.ask(pieces, "exists", {"name": key}).params == {"exists": "1"}
    assert line.ask(pieces, "delete", {"name": key}).params["deleted"] == "1"
    missing = line.ask(pieces, "read", {"name": key})
    assert (missing.code, missing.params) == ("not_found", {})
    assert missing.body.decode().isprintable()


def quoted(key: bytes) -> bytes:
    """As a listing shows a key."""
    return quote_from_bytes(
        key, safe="".join(map(chr, range(33, 127))).translate({ord(c): None for c in "|%="})
    ).encode()


@given(st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=30), PIECES)
@settings(max_examples=50, deadline=None)
def test_a_pipeline_is_answered_in_order(
    line: Line, entries: list[tuple[bytes, bytes]], pieces: list[int]
) -> None:
    """Ids rise by one, and each answer has the one of its request."""
    requests = [line.codec.request("write", {"name": key}, value) for key, value in entries]
    requests += [line.codec.request("read", {"name": key}) for key, _ in entries]
    line.socket.sendall(b"".join(data for _, data in requests))
    answers = [line.next(pieces) for _ in requests]

    numbers = [number for number, _ in requests]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert [answer.id for answer in answers] == numbers
    assert [answer.body for answer in answers[len(entries) :]] == [dict(entries)[key] for key, _ in entries]


def test_a_value_may_be_sent_apart(line: Line) -> None:
    """With its length as a parameter, and before the newline."""
    number, data = line.codec.request("write", {"name": "apart", "length": 5})
    assert data.endswith(b"|\n")
    line.socket.sendall(data[:-1] + b"a\nb|c" + data[-1:])
    assert line.next([7]).id == number

    assert line.ask([7], "read", {"name": "apart"}).body == b"a\nb|c"


def test_numbers_text_and_bytes_are_parameters(line: Line) -> None:
    """Text stands for its UTF-8."""
    line.ask([9], "write", {"name": "ü", "ttl": 100}, b"1")

    assert line.ask([9], "read", {"name": "ü".encode()}).body == b"1"
    assert "expires" in line.ask([9], "read", {"name": "ü"}).params


def test_hello_asks_to_keep_and_to_frame() -> None:
    """With a password first, if there is one, percent-encoded."""
    codec = ClientCodec()
    assert codec.hello().startswith(b"keep|")
    assert b"frame=1" in codec.hello()

    first, second = codec.hello("a b|c").splitlines()
    assert first.startswith(b"auth|password=a%20b%7Cc ")
    assert second.startswith(b"keep|")


@pytest.mark.parametrize("command", ["", "nonsense", "READ", "read|name=x", "read\n", "ping ", "re ad"])
def test_what_is_no_command_is_refused(command: str) -> None:
    """Before it is sent: it could be anything to the server."""
    with pytest.raises(ValueError):
        ClientCodec().request(command, {})


@given(st.text(max_size=20), st.sampled_from(COMMANDS))
def test_no_parameter_can_smuggle_another_request(text: str, command: str) -> None:
    """A value is encoded; a name that would have to be is refused."""
    number, data = ClientCodec().request(command, {"name": text})
    assert number == 1
    assert data.count(b"\n") == 1
    assert data.count(b"|") == 2

    if not text.replace("_", "").isalpha() or not text.isascii() or not text.islower():
        with pytest.raises(ValueError):
            ClientCodec().request(command, {text: "1"})


@pytest.mark.parametrize("params", [{"name": None}, {"name": 1.5}, {"name": ["a"]}, {1: "a"}, {b"name": "a"}])
def test_a_parameter_of_a_wrong_type(params: dict[Any, Any]) -> None:
    """Is a TypeError."""
    with pytest.raises(TypeError):
        ClientCodec().request("read", params)


REPLY = st.tuples(
    st.booleans(),
    st.integers(0, 2**64 - 1),
    st.dictionaries(NAMES, st.text(max_size=10), max_size=3),
    st.binary(max_size=50),
)


def encoded(reply: tuple[bool, int, dict[str, str], bytes]) -> bytes:
    """A framed reply, as the protocol is documented."""
    ok, number, params, body = reply
    words = [f"{name}={quote_from_bytes(value.encode(), safe='')}" for name, value in params.items()]
    code = [] if ok else ["code=not_found"]
    head = " ".join([f"id={number}", *code, *words, f"length={len(body)}"])
    return (b"ok|" if ok else b"error|") + head.encode() + b"|" + body + b"\n"


@given(st.lists(REPLY, max_size=10), PIECES)
def test_replies_are_understood_however_they_are_cut(
    replies: list[tuple[bool, int, dict[str, str], bytes]], pieces: list[int]
) -> None:
    """All of them, and nothing more."""
    codec = ClientCodec()
    data = b"".join(map(encoded, replies))
    answers: list[Answer] = []
    at, turn = 0, 0
    while at < len(data):
        size = pieces[turn % len(pieces)]
        answers += codec.feed(data[at : at + size])
        at, turn = at + size, turn + 1

    assert [(answer.id, answer.params, answer.body) for answer in answers] == [reply[1:] for reply in replies]
    assert [answer.code for answer in answers] == [None if reply[0] else "not_found" for reply in replies]


def fed(data: bytes) -> list[Answer] | str:
    """The answers in some bytes, or the code of the error that they are; no other exception."""
    try:
        return ClientCodec().feed(data)
    except ProtocolError as error:
        return error.code


@given(st.binary(max_size=200))
def test_nonsense_is_a_protocol_error_or_not_whole_yet(data: bytes) -> None:
    """There is no answer out of thin air."""
    assert fed(data) in ("protocol", []) or data.startswith((b"ok|", b"error|"))


@given(REPLY, st.integers(0, 200), st.binary(max_size=3))
def test_a_damaged_reply_is_a_protocol_error_or_another_reply(
    reply: tuple[bool, int, dict[str, str], bytes], at: int, damage: bytes
) -> None:
    """One byte replaced by a few, anywhere."""
    data = encoded(reply)
    at %= len(data)
    answers = fed(data[:at] + damage + data[at + 1 :])

    assert answers == "protocol" or all(isinstance(answer, Answer) for answer in answers)


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense|length=0|\n",
        b"ok|length=x|",
        b"ok|length=-1|",
        b"ok||\n",
        b"ok|id=x length=0|\n",
        b"ok|length=0|x",
        b"ok|length=99999999999999999999|",
        b"ok|version|\n",
        b"ok|a=%zz length=0|\n",
        b"ok|a=%ff length=0|\n",
        b"x" * 5_000,
        b"-ERR what Redis says\r\n" + b" " * 5_000,
    ],
)
def test_a_broken_reply_is_told_at_once(data: bytes) -> None:
    """Not waited on for ever; the rest of that connection is not read either."""
    codec = ClientCodec()
    with pytest.raises(ProtocolError) as broken:
        codec.feed(data)

    assert broken.value.code == "protocol"
    assert str(broken.value).isprintable()
    with pytest.raises(ProtocolError):
        codec.feed(b"ok|id=1 length=0|\n")


def test_a_reply_that_is_longer_than_believed() -> None:
    """A server cannot make a client wait for, and keep, what it does not want."""
    codec = ClientCodec(max_reply=100)
    assert [answer.body for answer in codec.feed(b"ok|id=1 length=100|" + b"x" * 100 + b"\n")] == [b"x" * 100]
    with pytest.raises(ProtocolError):
        codec.feed(b"ok|id=2 length=101|")


def test_an_answer_is_frozen_and_matches() -> None:
    """It can be taken apart, not changed."""
    [answer] = ClientCodec().feed(b"error|code=exists id=9 length=5|there\n")
    match answer:
        case Answer(number, code, params, body):
            assert (number, code, params, body) == (9, "exists", {}, b"there")
        case _:
            raise AssertionError(answer)
    with pytest.raises(AttributeError):
        answer.code = None  # type: ignore[misc] # that is what is tested


def test_a_large_reply_leaves_nothing_behind() -> None:
    """A connection that once carried one does not keep its memory."""
    size = 16 << 20
    reply = b"ok|id=1 length=%d|" % size + b"x" * size + b"\nok|id=2 length=1|y\n"
    before, codecs = resident(os.getpid()), []
    for _ in range(12):
        codec = ClientCodec()
        assert codec.feed(reply[:-30]) == []
        assert [len(answer.body) for answer in codec.feed(reply[-30:])] == [size, 1]
        codecs.append(codec)
    assert resident(os.getpid()) - before < 6 * size
