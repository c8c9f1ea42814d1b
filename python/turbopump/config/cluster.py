"""What makes nodes a cluster: its name, its secrets' places, and how patient they are with each other."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from turbopump.config.section import Section, Size


def check_path(path: str) -> str:
    """The path of a file, in which only {name} is replaced."""
    wrong = [found for found in re.findall(r"\{[^}]*\}?", path) if found != "{name}"]
    if not path or "\0" in path or wrong:
        raise ValueError('write the path of a file, such as "keys/{name}.key"; only {name} is replaced')
    return path


KeyPath = Annotated[str, AfterValidator(check_path)]


class Cluster(Section):
    """What the members of a cluster have in common. One node alone leaves it out."""

    name: str = Field(
        default="turbopump",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="Name of the cluster: letters, digits, dots, dashes. Nodes of another one are refused.",
    )
    secret: KeyPath = Field(
        default="cluster.secret",
        description="File of the secret that all members share, beside this file; {name} is the member's.",
    )
    key: KeyPath = Field(
        default="keys/{name}.key",
        description="File of a node's private key, beside this file; {name} is the member's. A node is the "
        "member whose public key it has.",
    )
    sync_seconds: float = Field(
        default=1,
        ge=0.05,
        le=3600,
        description="How often a node compares digests with each peer. While they are equal: 64 bytes.",
    )
    ack_timeout: float = Field(
        default=2,
        ge=0.001,
        le=3600,
        description="Seconds that a command waits for other members. Then its error says what is known: "
        "what was written stays, and heals. Above a peer's round trip and one retransmission.",
    )
    peer_timeout: float = Field(
        default=3.5,
        ge=0.1,
        le=3600,
        description="Seconds of silence after which a peer counts as down. It is asked for a sign of life "
        "every second, so three must be lost.",
    )
    max_hints: Size = Field(
        default=64 << 20,
        description="Bytes of writes kept for each absent peer, to be delivered when it is back. What "
        "does not fit is found by comparing digests, which takes longer.",
    )
    max_message: Size = Field(
        default=16 << 10,
        ge=4096,
        le=16 << 10,
        description="Bytes of writes sent to a peer as one message. Larger ones delay what comes behind.",
    )
    redirect: bool = Field(
        default=False,
        description="Whether Redis clients that ask a node for a key it does not keep are sent to the owner "
        "with MOVED. Otherwise the node asks the owner itself, which every client understands.",
    )
    congestion: Literal["bbr", "cubic", "udt"] = Field(
        default="bbr",
        description="Who sets the rate of what a node sends to each other one: bbr keeps it where packets "
        "are lost at random, cubic does as TCP does, udt as UDT did.",
    )
    stay_awake_us: int = Field(
        default=100,
        ge=0,
        le=10_000,
        description="Microseconds that a thread stays awake while a command waits for a member that answers "
        "so soon: to fall asleep and be woken may take longer. 0 saves power.",
    )

    def secret_file(self, member: str) -> Path:
        """Where a member has the secret that all share."""
        return Path(self.secret.replace("{name}", member))

    def key_file(self, member: str) -> Path:
        """Where a member has its private key."""
        return Path(self.key.replace("{name}", member))
