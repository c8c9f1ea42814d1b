"""directory.py: what `turbopump init` writes starts a cluster, and nothing that was there is touched."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from turbopump.config import load, parse
from turbopump.directory import FILE, Plan, make, next_steps
from turbopump.errors import ConfigError
from turbopump.keys import identify, mistakes


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where nothing is yet."""
    return tmp_path / "new" / "cluster"


@pytest.fixture
def umask() -> Iterator[None]:
    """A shell that lets everybody read everything."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("nodes", [1, 2, 3, 5, 27])
@pytest.mark.usefixtures("umask")
def test_what_is_made_is_good(directory: Path, nodes: int) -> None:
    """A file that is read again, with a key for each node and one secret, for their owner alone."""
    placement = "clone" if nodes <= 16 else "partition"
    made = make(directory, Plan(nodes, placement=placement))
    config = load(directory / FILE)

    assert config.members == made.members
    assert len(config.members) == nodes
    assert mistakes(config) == []
    secrets = {identify(config, member.name).shared for member in config.members}
    assert len(secrets) == 1
    private = [*(directory / "keys").iterdir(), directory / "cluster.secret"]
    assert len(private) == nodes + 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert stat.S_IMODE((directory / "keys").stat().st_mode) == 0o700


def test_nodes_on_one_box_do_not_meet(directory: Path) -> None:
    """Sockets, UDP and TCP ports are all different."""
    config = make(directory, Plan(3, port=7000, tcp_port=8000, socket_directory=Path("/run/t")))

    assert [str(member.udp) for member in config.members] == [
        f"127.0.0.1:{port}" for port in (7000, 7001, 7002)
    ]
    assert [member.tcp.port for member in config.members if member.tcp] == [8000, 8001, 8002]
    assert [member.socket for member in config.members] == [f"/run/t/turbopump-{name}" for name in "abc"]


def test_nodes_on_boxes_of_their_own_have_the_same_ports(directory: Path) -> None:
    """And no TCP, for which their operator must choose a password; two on one box share it."""
    hosts = ["10.0.0.1", "fd00::1", "box3", "10.0.0.1"]
    config = make(directory, Plan(4, hosts, placement="partition", copies=2))

    assert [str(member.udp) for member in config.members] == [
        "10.0.0.1:1593",
        "[fd00::1]:1593",
        "box3:1593",
        "10.0.0.1:1594",
    ]
    assert {member.tcp for member in config.members} == {None}
    assert [member.socket for member in config.members] == [
        "/tmp/turbopump-a",
        "/tmp/turbopump",
        "/tmp/turbopump",
        "/tmp/turbopump-d",
    ]
    assert (config.placement, config.copies) == ("partition", 2)


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        (Plan(0), "0 nodes: 1 to 1024"),
        (Plan(3, ["a", "b"]), "2 hosts for 3 nodes"),
        (Plan(1, ["a b"]), "'a b' is no host"),
        (Plan(1, ["0.0.0.0"]), "nobody can send to it"),  # noqa: S104 - refused
        (Plan(3, copies=4), "only 3 members have a weight"),
        (Plan(17), "a clone keeps every key on all 17"),
        (Plan(2, port=65535), "there is no port 65536"),
        (Plan(2, socket_directory=Path("/" + "x" * 100)), "too long for a socket"),
    ],
)
def test_a_plan_that_cannot_be_leaves_nothing(directory: Path, plan: Plan, problem: str) -> None:
    """Not even the directory."""
    with pytest.raises(ConfigError, match=problem):
        make(directory, plan)
    assert not directory.exists()


def test_nothing_is_overwritten(directory: Path) -> None:
    """A directory must be empty: what is there stays as it is."""
    directory.mkdir(parents=True)
    (directory / "notes").write_text("mine")

    with pytest.raises(ConfigError, match="is not empty"):
        make(directory, Plan(3))
    assert [path.name for path in directory.iterdir()] == ["notes"]

    (directory / "notes").unlink()
    make(directory, Plan(3))
    before = (directory / FILE).read_text()
    with pytest.raises(ConfigError, match="is not empty"):
        make(directory, Plan(3))
    assert (directory / FILE).read_text() == before
    assert mistakes(load(directory / FILE)) == []


@pytest.mark.parametrize("existed", [False, True])
def test_what_was_half_written_is_removed(
    directory: Path, monkeypatch: pytest.MonkeyPatch, *, existed: bool
) -> None:
    """If the disk is full, say."""
    if existed:
        directory.mkdir(parents=True)

    def full(*_args: Any, **_options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ConfigError, match="cannot be written: No space left"):
        make(directory, Plan(2))
    assert not existed or list(directory.iterdir()) == []
    assert directory.exists() == existed


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """Is named."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        make(tmp_path / "file" / "cluster", Plan(1))


def test_what_comes_next_is_told(tmp_path: Path) -> None:
    """The lines to type on one box; what to copy to several."""
    one = next_steps(tmp_path, make(tmp_path / "one", Plan(3)))
    assert one.count("turbopump serve ") == 3
    assert "--node c\n\nand look at it:\n\n  turbopump status --socket /tmp/turbopump-a\n" in one

    many = next_steps(tmp_path, make(tmp_path / "many", Plan(12, [f"10.0.0.{n}" for n in range(12)])))
    assert "10.0.0.0                 keys/a.key" in many
    assert "keys/k.key" not in many
    assert "... 12 in all" in many


def test_the_file_is_plain(directory: Path) -> None:
    """What stands in it is what its reader may want to change."""
    make(directory, Plan(2, placement="partition", copies=1))
    document = json.loads((directory / FILE).read_text())

    assert list(document) == ["cluster", "placement", "copies", "members"]
    assert parse(document).copies == 1
