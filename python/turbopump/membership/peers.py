"""How the members are, as far as this node knows: the file's words and the engine's figures side by side."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from turbopump.config import Member
from turbopump.membership.topology import Topology

State = Literal["self", "alive", "connecting", "down", "unknown"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A member seen from this node, which is one of them."""

    member: Member
    state: State
    """`self`; `alive`, `connecting` or `down`, as the engine says; `unknown` while it says nothing."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What the engine counts of it, by name."""

    @property
    def answers(self) -> bool:
        """Whether it is worth asking. Who is looked for is `connecting`, and may have been gone for days."""
        return self.state not in {"connecting", "down"}

    def as_dict(self) -> dict[str, Any]:
        """All of it, for programs."""
        about = {
            "name": self.member.name,
            "state": self.state,
            "address": self.member.address,
            "zone": self.member.zone,
            "weight": self.member.weight,
        }
        return about | dict(self.figures)


def peers(topology: Topology, me: str, stats: Mapping[str, object]) -> list[Peer]:
    """All members in the order of their names, this node too.

    Args:
        topology: Who is a member.
        me: This node's name.
        stats: The engine's; what it measured of peers is under `peers`.
    """
    told = cast("Iterable[Mapping[str, Any]]", stats.get("peers") or ())
    measured = {str(figures["name"]): figures for figures in told}
    return [_peer(member, me, measured.get(member.name, {})) for member in topology.members]


def _peer(member: Member, me: str, measured: Mapping[str, Any]) -> Peer:
    figures = {name: value for name, value in measured.items() if name not in {"name", "state"}}
    state = "self" if member.name == me else measured.get("state", "unknown")
    return Peer(member, cast("State", state), figures)


def rounds(status: Mapping[str, Any]) -> dict[str, int]:
    """How many comparisons have ended, by the names of those peers that can take part in one.

    Args:
        status: A node's.
    """
    told = status.get("peers", [])
    return {peer["name"]: peer.get("rounds", 0) for peer in told if peer["state"] == "alive"}


def were_compared(before: Mapping[str, int], status: Mapping[str, Any]) -> bool:
    """Whether another comparison has ended with each of those in `before` that are still there."""
    now = rounds(status)
    return all(now[name] > count for name, count in before.items() if name in now)


def peers_table(found: Sequence[Mapping[str, Any]]) -> str:
    """The `peers` of a status as a table for people: a line for each, and only what is known."""
    titles = (
        "peer",
        "state",
        "rtt",
        "equal",
        "found",
        "digests",
        "rounds",
        "hints",
        "sent",
        "received",
        "loss",
    )
    rows = [titles, *(tuple(_cells(peer)) for peer in found)]
    used = [index for index in range(len(titles)) if any(row[index] for row in rows[1:])]
    widths = {index: max(len(row[index]) for row in rows) for index in used}
    return "\n".join(
        "  ".join(
            row[index].ljust(widths[index]) if index < 2 else row[index].rjust(widths[index])
            for index in used
        ).rstrip()
        for row in rows
    )


def _cells(peer: Mapping[str, Any]) -> Iterator[str]:
    yield str(peer["name"])
    yield str(peer["state"])
    yield _ms(None if peer.get("rtt_us") is None else peer["rtt_us"] / 1000)
    yield "" if peer.get("last_equal_ms") is None else f"{_ms(peer['last_equal_ms'])} ago"
    yield _count(peer.get("keys_found"))
    yield _bytes(peer.get("digest_bytes"))
    yield _count(peer.get("rounds"))
    yield _count(peer.get("hints"))
    yield _bytes(peer.get("bytes_sent"))
    yield _bytes(peer.get("bytes_received"))
    yield "" if peer.get("loss") is None else f"{peer['loss']:.2%}"


def _ms(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:,.1f} s"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _bytes(value: int | None) -> str:
    if value is None:
        return ""
    size, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
