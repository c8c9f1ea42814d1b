"""A cluster's directory: one file that is the same on every box, a key for each node, the secret of all.

Made by `turbopump init`. What was there before is never touched.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from turbopump.config import Address, Config, is_loopback, parse
from turbopump.config.section import SOCKET_PATH_BYTES_MAX
from turbopump.errors import ConfigError
from turbopump.keys import ClusterSecret, NodeKey

NODES_MAX: Final = 1024  # what a layout takes
FILE: Final = "cluster.json"
SECRET: Final = "cluster.secret"  # noqa: S105 - a file's name
KEYS: Final = "keys"
SHOWN_MAX: Final = 10  # lines of what to do next: who has more nodes than that has a way to do it


@dataclass(frozen=True, slots=True)
class Plan:
    """What a directory is to be of."""

    nodes: int
    """How many."""
    hosts: Sequence[str] = ("127.0.0.1",)
    """Of each node, an IP address or a name; one alone is that of all, which are then on one box."""
    port: int = 1593
    """UDP; where nodes share a box, the first one's, and the others have those behind it."""
    tcp_port: int | None = 1592
    """The same for Redis clients over TCP, on loopback only; None: they do not listen there."""
    placement: str = "clone"
    copies: int | None = None
    socket_directory: Path = Path("/tmp")  # noqa: S108 - sticky: nobody else can replace a socket there
    """Where nodes that share a box have their sockets."""


def make(directory: Path, plan: Plan) -> Config:
    """Writes a directory with which a cluster can be started.

    Args:
        directory: May be there, empty.
        plan: What it is of.

    Returns:
        The configuration that was written.

    Raises:
        ConfigError: There is something in the directory, it cannot be written, or the plan cannot be. What
            was written by then is removed.
    """
    names = _names(plan)
    keys = {name: NodeKey.generate() for name in names}
    document = _document(plan, keys)
    config = parse(document)  # a plan that cannot be is told before anything is there
    made = not directory.exists()
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigError([f"{directory} is not empty: name another directory, nothing is overwritten"])
        with _undone(directory, made=made):
            _write(directory, document, keys)
    except OSError as error:
        raise ConfigError([f"{directory} cannot be written: {error.strerror}"]) from error
    return config


def _write(directory: Path, document: dict[str, Any], keys: dict[str, NodeKey]) -> None:
    (directory / KEYS).mkdir(mode=0o700)
    for name, key in keys.items():
        key.save(directory / KEYS / f"{name}.key")
    ClusterSecret.generate().save(directory / SECRET)
    # Last: who finds the file finds all that it names.
    (directory / FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _undone(directory: Path, *, made: bool) -> Iterator[None]:
    """Removes what was written into a directory that was empty, if not all of it was."""
    try:
        yield
    except BaseException:
        for path in (directory / FILE, directory / SECRET):
            path.unlink(missing_ok=True)
        shutil.rmtree(directory / KEYS, ignore_errors=True)
        if made:
            directory.rmdir()
        raise


def _names(plan: Plan) -> list[str]:
    """a, b, c; numbers where letters do not suffice."""
    if not 1 <= plan.nodes <= NODES_MAX:
        raise ConfigError([f"{plan.nodes} nodes: 1 to {NODES_MAX}"])
    if plan.nodes <= 26:
        return [chr(ord("a") + index) for index in range(plan.nodes)]
    return [f"n{index + 1:0{len(str(plan.nodes))}}" for index in range(plan.nodes)]


def _document(plan: Plan, keys: dict[str, NodeKey]) -> dict[str, Any]:
    """The file, with what has no default and what an operator is likely to change."""
    hosts = list(plan.hosts) * (plan.nodes if len(plan.hosts) == 1 else 1)
    if len(hosts) != plan.nodes:
        raise ConfigError([f"{len(hosts)} hosts for {plan.nodes} nodes: give one for each, or one for all"])
    members: list[dict[str, Any]] = []
    for name, host in zip(keys, hosts, strict=True):
        before = sum(other == host for other in hosts[: len(members)])
        members.append(_member(plan, name, host, before, alone=hosts.count(host) == 1))
        members[-1]["public_key"] = str(keys[name].public_key)
    placed = {"placement": plan.placement} | ({} if plan.copies is None else {"copies": plan.copies})
    return {"cluster": {"secret": SECRET, "key": f"{KEYS}/{{name}}.key"}, **placed, "members": members}


def _member(plan: Plan, name: str, host: str, before: int, *, alone: bool) -> dict[str, Any]:
    """A member; `before` others are on its box already."""
    try:
        address = Address(Address.parse(f"[{host}]" if ":" in host else host).host, plan.port + before)
    except ValueError as error:
        raise ConfigError([f"{host!r} is no host: {error}"]) from error
    member: dict[str, Any] = {"name": name, "address": str(address)}
    if not alone:
        socket = str(plan.socket_directory / f"turbopump-{name}")
        if len(socket.encode()) > SOCKET_PATH_BYTES_MAX:
            raise ConfigError([f"{socket} is too long for a socket: name a directory with a shorter path"])
        member["socket"] = socket
    # Beyond loopback a listener needs a password, which only its operator can choose.
    if plan.tcp_port is not None and is_loopback(host):
        member["tcp"] = {"port": plan.tcp_port + before}
    return member


def next_steps(directory: Path, config: Config) -> str:
    """What to do with a directory that was made."""
    file, count = directory / FILE, len(config.members)
    hosts = {member.name: member.udp.host for member in config.members if member.udp}
    check = f"  turbopump check {file}\n"
    if len(set(hosts.values())) == 1:
        starts = [f"  turbopump serve {file} --node {name}" for name in hosts]
        return (
            f"{directory} has a cluster of {count} on one box. Start each node in a shell of its own:\n\n"
            f"{_shown(starts)}\n\nand look at it:\n\n"
            f"  turbopump status --socket {config.members[0].socket}\n{check}"
        )
    keys = [f"  {host:<24} {KEYS}/{name}.key" for name, host in hosts.items()]
    return (
        f"{directory} has a cluster of {count}. Copy {FILE} and {SECRET} to each box, and to each the key\n"
        f"of its own node alone, readable for the node's user only:\n\n{_shown(keys)}\n\n"
        f"There, `turbopump serve {FILE}` starts the node: its key tells which one it is. Delete the\n"
        f"keys here afterwards. To look for mistakes:\n\n{check}"
    )


def _shown(lines: Sequence[str]) -> str:
    rest = [f"  ... {len(lines)} in all"] if len(lines) > SHOWN_MAX else []
    return "\n".join([*lines[:SHOWN_MAX], *rest])
