"""The pipe protocol as a shell uses it: the first turbopump's lines, files byte for byte, pipelines."""

import hashlib
import itertools
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Served
from wire import Wire, once

NUMBERS = itertools.count()
VERSION = rb"[0-9a-f]{16}-[0-9a-f]{16}"
TOOLS = {
    "nc": "nc -U {path}",
    "nc -N": "nc -N -U {path}",
    "ncat": "ncat -U {path}",
    "socat": "socat -t 20 - UNIX-CONNECT:{path}",
}


def shell(line: str, *, seconds: float = 20) -> bytes:
    """What a line prints in a real shell; it must end by itself, and well."""
    done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=seconds, check=False)
    assert (done.returncode, done.stderr) == (0, b""), line
    return done.stdout


@pytest.fixture
def name() -> str:
    """A key that no other test uses."""
    return f"pipe-{next(NUMBERS)}"


def test_the_tools_are_the_ones_we_mean() -> None:
    """OpenBSD's nc, which waits for the server; without the tools these tests would prove nothing."""
    missing = [tool for tool in ("nc", "ncat", "socat") if shutil.which(tool) is None]
    assert missing == [], f"install {missing}: apt-get install netcat-openbsd ncat socat"

    usage = subprocess.run(["nc", "-h"], capture_output=True, text=True, timeout=10, check=False)
    assert "OpenBSD" in usage.stderr


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_the_seeds_three_lines_work_as_written(node: Served, tool: str) -> None:
    """Verbatim, one after the other, each ending by itself."""
    send = tool.format(path=node.socket)

    written = shell(f"echo 'write|name=foo|haha I am a great value' | {send}")
    read = shell(f"echo 'read|name=foo|'                         | {send}")
    listed = shell(f"echo 'local_list||'                           | {send}")

    assert written.startswith(b"ok|version=")
    assert read == b"haha I am a great value"
    assert b"(foo)=>23" in listed.splitlines()


def test_the_lines_work_on_the_default_socket_path(node: Served, folder: Path) -> None:
    """The seed names /tmp/turbopump: any path will do, a relative one too."""
    (folder / "turbopump").symlink_to(node.socket)
    shell(f"cd {folder} && echo 'write|name=relative|yes' | nc -U turbopump")

    assert shell(f"cd {folder} && echo 'read|name=relative|' | nc -U turbopump") == b"yes"


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_a_read_restores_a_file_byte_for_byte(node: Served, folder: Path, name: str, tool: str) -> None:
    """Of any bytes: pipes, newlines, zeros, more than a socket buffer holds."""
    send = tool.format(path=node.socket)
    original, restored = folder / "original", folder / "restored"
    original.write_bytes(bytes(range(256)) + random.Random(7).randbytes(3_000_001) + b"\n|\n")

    size = original.stat().st_size
    shell(f"(printf 'write|name={name} length={size}|'; cat {original}) | {send}")
    shell(f"echo 'read|name={name}|' | {send} > {restored}")

    assert digest(restored) == digest(original)


@pytest.mark.parametrize("tool", ["nc -N -U {path}", "ncat -U {path}", "socat -t 20 - UNIX-CONNECT:{path}"])
def test_a_file_of_unknown_length_ends_with_the_half_close(
    node: Served, folder: Path, name: str, tool: str
) -> None:
    """`length=eof` is for pipes, where nobody knows how much will come."""
    original, restored = folder / "original", folder / "restored"
    original.write_bytes(random.Random(8).randbytes(1_000_000) + b"\n")

    send = tool.format(path=node.socket)
    answer = shell(f"(printf 'write|name={name} length=eof|'; cat {original}) | {send}")
    shell(f"echo 'read|name={name}|' | {send} > {restored}")

    assert answer.startswith(b"ok|version=")
    assert digest(restored) == digest(original)


def test_a_header_without_a_newline_is_enough_to_read(node: Served, name: str) -> None:
    """Somebody types `printf` instead of `echo`."""
    shell(f"printf 'write|name={name}|v\\n' | nc -U {node.socket}")

    assert shell(f"printf 'read|name={name}|' | nc -U {node.socket}") == b"v"


def test_keep_carries_many_commands_in_a_shell(node: Served, name: str) -> None:
    """Answered in order, each status in a line; the half-close ends it."""
    lines = [
        "keep||",
        f"write|name={name}|first line",
        f"exists|name={name}|",
        f"delete|name={name}|",
        f"exists|name={name}|",
        f"read|name={name}|",
        "ping||",
    ]
    answers = shell("printf '" + "\\n".join(lines) + f"\\n' | nc -N -U {node.socket}").splitlines()

    assert [answer.split(b"=")[0] for answer in answers] == [
        b"ok|",
        b"ok|version",
        b"ok|exists",
        b"ok|deleted",
        b"ok|exists",
        b"error|code",
        b"pong",
    ]
    assert answers[2] == b"ok|exists=1"
    assert answers[4] == b"ok|exists=0"


def digest(path: Path) -> str:
    """What tells two files apart in a failure's message."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_connection_is_one_command_unless_it_is_kept(node: Served, name: str) -> None:
    """The server closes after its answer: nothing of what follows is run."""
    assert once(node.socket, b"ping||\nping||\n") == b"pong\n"

    once(node.socket, f"read|name={name}|\nwrite|name={name}|x\n".encode())
    assert once(node.socket, f"exists|name={name}|\n".encode()) == b"ok|exists=0\n"


def test_a_kept_connection_answers_in_order(node: Served, name: str) -> None:
    """Thousands of requests of both kinds, sent before the first answer is read."""
    count = 3_000
    with Wire(node.socket).keep() as wire:
        wire.send(requests(name, count))
        for number in range(count):
            assert wire.line().startswith(b"ok|version=")
            assert wire.exactly(len(str(number))) == str(number).encode()


def requests(name: str, count: int) -> bytes:
    """A write and a read of each of so many keys."""
    return b"".join(
        f"write|name={name}-{number}|{number}\nread|name={name}-{number}|\n".encode()
        for number in range(count)
    )


def test_the_end_of_the_line_is_framing_and_not_data(node: Served, name: str) -> None:
    """One newline is; a carriage return and blanks are data."""
    for request, value in ((b"v\n", b"v"), (b"\n", b""), (b"v\r\n", b"v\r"), (b" v \n", b" v ")):
        assert once(node.socket, f"write|name={name}|".encode() + request).startswith(b"ok|version=")
        assert once(node.socket, f"read|name={name}|\n".encode()) == value


@pytest.mark.parametrize("value", [b"", b"x", b"\n", b"a\nb", b"|", b"ok|\n" * 50, bytes(range(256)) * 300])
def test_a_value_with_its_length_may_be_any_bytes(node: Served, name: str, value: bytes) -> None:
    """On a kept connection nothing of it is taken for the next command."""
    with Wire(node.socket).keep(frame=True) as wire:
        wire.send(f"write|name={name} length={len(value)}|".encode() + value + b"\n")
        assert wire.framed().status == "ok"
        wire.send(f"read|name={name}|\nping||\n".encode())

        assert wire.framed().body == value
        assert wire.framed().body == b"pong"


def test_the_newline_behind_a_value_with_its_length_may_be_left_out(node: Served, name: str) -> None:
    """The length says it all."""
    with Wire(node.socket).keep() as wire:
        wire.send(f"write|name={name} length=3|abcread|name={name}|\n".encode())

        assert wire.line().startswith(b"ok|version=")
        assert wire.exactly(3) == b"abc"


KEYS = [
    b"a b",
    b"a|b",
    b"a=b",
    b"a%b",
    b"line\nbreak",
    b"\r\n\t\0",
    "schlüssel/鍵".encode(),
    bytes(range(1, 256)),
]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_any_key_can_be_percent_encoded(node: Served, key: bytes) -> None:
    """In capitals or not, and what `list` shows can be sent back as it is."""
    for escape in ("%%%02x", "%%%02X"):
        encoded = "".join(escape % byte for byte in key).encode()
        value = escape.encode()
        assert once(node.socket, b"write|name=%b|%b\n" % (encoded, value)).startswith(b"ok|version=")
        assert once(node.socket, b"read|name=%b|\n" % encoded) == value

    [listed] = once(node.socket, b"list|prefix=%b|\n" % encoded).splitlines()
    assert once(node.socket, b"read|name=%b|\n" % listed) == value
    assert once(node.socket, b"delete|name=%b|\n" % listed).startswith(b"ok|deleted=1 version=")


def test_a_name_needs_no_escape_that_the_protocol_does_not(node: Served) -> None:
    """The first turbopump took any name without blanks and pipes; a second = belongs to the value."""
    plain = b"/var/log/a.b,c;d:e@f?g=h&i+j~k(l)m[n]{o}'p\"q!r#s$t^u*v\\w"
    once(node.socket, b"write|name=%b|plain\n" % plain)

    assert once(node.socket, b"read|name=%b|\n" % plain) == b"plain"


def test_framed_replies_carry_length_and_id(node: Served, name: str) -> None:
    """So that a program never guesses where one ends; the frame of one request is its own."""
    with Wire(node.socket).keep() as wire:
        wire.send(f"write|name={name} id=7 frame=1 length=4|a\n|b\n".encode())
        written = wire.framed()
        assert written.status == "ok"
        assert written.params["id"] == "7"
        assert written.body == b""

        wire.send(f"read|name={name} frame=1 id=18446744073709551615|\nping||\n".encode())
        read = wire.framed()
        assert (read.status, read.body) == ("ok", b"a\n|b")
        assert read.params == {"id": "18446744073709551615", "version": written.params["version"]}
        assert wire.line() == b"pong"


def test_framed_errors_carry_length_and_id(node: Served, name: str) -> None:
    """And their text, which is for people."""
    with Wire(node.socket).keep(frame=True) as wire:
        wire.send(f"read|name={name} id=3|\n".encode())
        missing = wire.framed()

        assert (missing.status, missing.code, missing.params["id"]) == ("error", "not_found", "3")
        assert missing.body.decode().isprintable()


@pytest.mark.parametrize("request_", ["membership||", "ring||", "state||", "status||", "help||", "list||"])
def test_every_command_can_be_framed(node: Served, request_: str) -> None:
    """Cold ones too: the connection goes on behind each."""
    request = request_.replace("||", "|id=9|").encode()
    with Wire(node.socket).keep(frame=True) as wire:
        wire.send(request + b"\nping|id=10|\n")
        answer, pong = wire.framed(), wire.framed()

        assert (answer.status, answer.params["id"]) == ("ok", "9")
        assert (pong.params["id"], pong.body) == ("10", b"pong")


def test_blank_lines_between_commands_are_nobodys_business(node: Served) -> None:
    """People press enter; files written elsewhere end their lines with two bytes."""
    with Wire(node.socket).keep() as wire:
        wire.send(b"\n\r\n\nping||\r\n\n ping||\n")

        assert (wire.line(), wire.line()) == (b"pong", b"pong")
