"""Keyspaces: key prefixes with rules of their own."""

from typing import Literal

from pydantic import Field

from turbopump.config.section import Section, Size

COPIES_MAX = 16  # what the layout's solver takes: more copies of one key than that nobody wants to wait for

Placement = Literal["clone", "partition"]


class Keyspace(Section):
    """Rules for the keys that begin with a prefix; the longest prefix that fits decides."""

    prefix: str = Field(description='Beginning of the keys; "" for all that no other keyspace takes.')
    writes: Literal["versioned", "immutable"] = Field(
        default="versioned",
        description="What a second write does: the later one wins, or other content is refused.",
    )
    ttl: float | None = Field(
        default=None,
        gt=0,
        le=10**10,
        description="Lifetime in seconds of a write that states none; null: for ever.",
    )
    max_memory: Size = Field(
        default=0, description="Most bytes its entries may take. 0: only the node's limit."
    )
    placement: Placement | None = Field(
        default=None,
        description="Its keys on every member (clone), or each on some (partition); null: as the file says.",
    )
    copies: int | None = Field(
        default=None,
        ge=1,
        le=COPIES_MAX,
        description="Members that keep each key, in a partition; null: as the file says.",
    )
    write_acks: Literal["one", "quorum", "all"] = Field(
        default="quorum",
        description="Members that must have a write before it is answered: one loses it with that member, "
        "a quorum outlives any minority, all waits for the slowest.",
    )
    read_acks: Literal["one", "quorum"] = Field(
        default="one",
        description="Members that are asked for a key: one is fastest and may be late, a quorum sees every "
        "write that a quorum took.",
    )
    transport: Literal["reliable", "datagram"] = Field(
        default="reliable",
        description="How small writes travel to other members: until they arrive, or once, for what the "
        "next write replaces anyway; what is lost then heals with the next comparison.",
    )
