"""What others know a node by. Not the private half: that is in `keys.py`, and on its node alone."""

import base64
import binascii
from dataclasses import dataclass
from typing import Final, Self

KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What others know a node by: one text of 86 characters, in the configuration of every member."""

    identity: bytes
    """Ed25519, 32 bytes: the node's name for good."""
    transport: bytes
    """X25519, 32 bytes: what packets to the node are sealed for."""

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(self.identity + self.transport).rstrip(b"=").decode()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key that `str` wrote.

        Raises:
            ValueError: It is none; the message says what to write.
        """
        both = decoded(text)
        if both is None or len(both) != 2 * KEY_BYTES:
            raise ValueError("write the public key of 86 characters that `turbopump keygen` printed")
        return cls(both[:KEY_BYTES], both[KEY_BYTES:])


def decoded(text: object) -> bytes | None:
    """The bytes that a text stands for, in base64 for addresses and without padding; None if it is none."""
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
