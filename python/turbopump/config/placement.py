"""Where keys belong, as the file says it: what each keyspace comes down to, and what all must agree on."""

import hashlib
import json
from typing import TYPE_CHECKING, Final

from turbopump.config.keyspace import Keyspace

if TYPE_CHECKING:
    from turbopump.config.document import Config

COPIES: Final = 3
"""Where nothing else is said: with three, one member may be away and a quorum is still there."""
DIGEST_BYTES: Final = 16


def keepers(config: "Config") -> int:
    """How many members keep keys: those with a weight."""
    return sum(member.weight > 0 for member in config.members)


def rules(config: "Config") -> tuple[Keyspace, ...]:
    """All keyspaces, the one for all other keys among them."""
    if any(not keyspace.prefix for keyspace in config.keyspaces):
        return config.keyspaces
    return (*config.keyspaces, Keyspace(prefix=""))


def is_clone(config: "Config", keyspace: Keyspace) -> bool:
    """Whether every member that keeps keys keeps all of a keyspace's."""
    return (keyspace.placement or config.placement) == "clone"


def copies_of(config: "Config", keyspace: Keyspace) -> int:
    """How many members keep each key of a keyspace; 0 for all of those that keep any."""
    if is_clone(config, keyspace):
        return 0
    return keyspace.copies or config.copies or min(COPIES, keepers(config))


def layout_digest(config: "Config") -> bytes:
    """16 bytes that are the same for all nodes whose files agree about where keys belong.

    Names, keys, weights and zones of the members, and prefix, copies and kind of write of the keyspaces:
    who differs in one of them would look for keys elsewhere, or merge them otherwise. Not addresses, limits
    or acknowledgements: those may be changed on one box after the other.
    """
    agreed = {
        "cluster": config.cluster.name if config.cluster else "",
        "members": sorted(
            [member.name, member.public_key or "", member.weight, member.zone] for member in config.members
        ),
        "keyspaces": sorted(
            [keyspace.prefix, keyspace.writes, copies_of(config, keyspace)] for keyspace in rules(config)
        ),
    }
    text = json.dumps(agreed, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES, person=b"turbopump layout").digest()
