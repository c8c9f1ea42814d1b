"""Large values go by way of a node that does not keep them without being held there."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import Serve, Served
from test_cluster import NAMES, Trio, eventually, status
from wire import Wire, command, forget_peak, peak

SIZE = 256 << 20
# limits.max_relayed, and what the transport and the system hold.
HELD_MAX = 48 << 20


class Scene(NamedTuple):
    """Who plays."""

    trio: Trio
    key: str
    keeper: Served
    between: Served


def requests(scene: Scene) -> int:
    """How many requests of others the keeper has under way."""
    return sum(peer["requests"] for peer in status(scene.keeper)["peers"])


def unread(node: Served) -> int:
    """Bytes of replies that the clients of a node have not taken."""
    with Wire(node.socket) as wire:
        length = int(wire.send(command("CLIENT", "LIST")).line()[1:])
        listed = wire.exactly(length).decode()
    return max(int(field[5:]) for field in listed.split() if field.startswith("omem="))


def pieces(size: int) -> Iterator[bytes]:
    """So many bytes, the same ones each time."""
    piece = random.Random(size).randbytes(1 << 20)
    for number in range(size >> 20):
        yield number.to_bytes(8, "big") + piece[8:]


def digest(size: int) -> str:
    """What the bytes of `pieces` come to."""
    sha = hashlib.sha256()
    for piece in pieces(size):
        sha.update(piece)
    return sha.hexdigest()


def write(node: Served, key: str, size: int, *, length: str = "") -> bytes:
    """Writes a large value; the answer."""
    with Wire(node.socket, seconds=60) as wire:
        wire.send(f"write|name={key} length={length or size}|".encode())
        for piece in pieces(size):
            wire.send(piece)
        return wire.half_close().rest()


def read(wire: Wire, size: int, *, step: int) -> str:
    """Reads a value of so many bytes, some at a time; what it comes to."""
    sha = hashlib.sha256()
    while size > 0:
        count = min(step, size)
        sha.update(wire.exactly(count))
        size -= count
    return sha.hexdigest()


@pytest.fixture
def scene(folder: Path, serve: Serve) -> Scene:
    """A partition in which each key is on one node, a key, who keeps it, and who does not."""
    trio = Trio(folder, serve, placement="partition", copies=1)
    with trio.client("a") as client:
        client.put("key", b"small")
    keys = {name: status(trio.nodes[name])["keys"] for name in NAMES}
    keeper = next(name for name in NAMES if keys[name])
    between = next(name for name in NAMES if name != keeper)
    return Scene(trio, "key", trio.nodes[keeper], trio.nodes[between])


def test_who_reads_slowly_has_a_node_hold_a_part_of_the_value(scene: Scene) -> None:
    """However large it is; and the bytes are right."""
    assert write(scene.keeper, scene.key, SIZE).startswith(b"ok|")
    pid = scene.between.process.pid
    forget_peak(pid)
    before = peak(pid)
    with Wire(scene.between.socket, seconds=60) as wire:
        wire.send(f"read|name={scene.key}|\n".encode())
        eventually(lambda: unread(scene.between) > 2 << 20)
        assert requests(scene) == 1, "the keeper waits for the client to go on"
        assert read(wire, SIZE, step=100_000) == digest(SIZE)
        assert wire.rest() == b""
    assert peak(pid) - before < HELD_MAX
    eventually(lambda: requests(scene) == 0)


@pytest.mark.parametrize("framed", [True, False])
def test_who_writes_has_a_node_hold_a_part_of_the_value(scene: Scene, *, framed: bool) -> None:
    """In both protocols, whether the length is known or not."""
    pid = scene.between.process.pid
    forget_peak(pid)
    before = peak(pid)
    if framed:
        with Wire(scene.between.socket, seconds=60) as wire:
            wire.send(f"*3\r\n$3\r\nSET\r\n$3\r\n{scene.key}\r\n${SIZE}\r\n".encode())
            for piece in pieces(SIZE):
                wire.send(piece)
            assert wire.send(b"\r\n").line() == b"+OK\r"
            assert wire.send(command("PING")).line() == b"+PONG\r"
    else:
        assert write(scene.between, scene.key, SIZE, length="eof").startswith(b"ok|")
    assert peak(pid) - before < HELD_MAX
    assert requests(scene) == 0
    with Wire(scene.keeper.socket, seconds=60) as wire:
        wire.send(f"read|name={scene.key}|\n".encode())
        assert read(wire, SIZE, step=1 << 20) == digest(SIZE)


def test_who_leaves_in_the_middle_of_a_write_has_written_nothing(scene: Scene) -> None:
    """And the keeper forgets what it had of it."""
    with Wire(scene.between.socket) as wire:
        wire.send(f"write|name={scene.key} length={SIZE}|".encode())
        for piece in pieces(SIZE // 4):
            wire.send(piece)
        assert requests(scene) == 1
    eventually(lambda: requests(scene) == 0)
    with Wire(scene.keeper.socket) as wire:
        assert wire.send(f"read|name={scene.key}|\n".encode()).rest() == b"small"


def test_who_leaves_in_the_middle_leaves_nothing_behind(scene: Scene) -> None:
    """On either node."""
    assert write(scene.keeper, scene.key, SIZE // 4).startswith(b"ok|")
    for _ in range(3):
        with Wire(scene.between.socket) as wire:
            wire.send(f"read|name={scene.key}|\n".encode())
            wire.exactly(1 << 20)
            assert requests(scene) == 1
        eventually(lambda: requests(scene) == 0)
    eventually(lambda: unread(scene.between) == 0)


def test_clients_that_read_nothing_hold_nobody_up(scene: Scene) -> None:
    """More of them than streams that a connection has at a time."""
    assert write(scene.keeper, scene.key, SIZE // 8).startswith(b"ok|")
    wires = [Wire(scene.between.socket) for _ in range(80)]
    try:
        for wire in wires:
            wire.send(f"read|name={scene.key}|\n".encode())
        eventually(lambda: requests(scene) == len(wires))
        with Wire(scene.between.socket) as wire:
            wire.send(f"read|name={scene.key}|\n".encode())
            assert read(wire, SIZE // 8, step=1 << 20) == digest(SIZE // 8)
    finally:
        for wire in wires:
            wire.socket.close()
    eventually(lambda: requests(scene) == 0)
