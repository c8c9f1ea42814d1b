"""A node's secrets: made here, kept in files that only their owner reads, handed to the engine once.

Not the cryptography of the wire: that is the engine's. A node has two key pairs, so that the one that every
packet depends on can be replaced without a new name for the node: Ed25519 for who it is (RFC 8032), X25519
for what it sends (RFC 7748). The cluster shares one more secret: who only knows public keys stays outside.
"""

import base64
import binascii
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from nacl.public import PrivateKey
from nacl.signing import SigningKey

from turbopump.errors import ConfigError

KEY_BYTES: Final = 32
FILE_BYTES_MAX: Final = 4096
"""A file of keys has some hundred bytes: what is larger is something else, and is not read whole."""


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
        both = _decoded(text)
        if both is None or len(both) != 2 * KEY_BYTES:
            raise ValueError("write the public key of 86 characters that `turbopump keygen` printed")
        return cls(both[:KEY_BYTES], both[KEY_BYTES:])


@dataclass(frozen=True, slots=True)
class NodeKey:
    """A node's private keys. Shown, it shows its public half."""

    identity: bytes = field(repr=False)
    """The seed of the Ed25519 key, 32 bytes."""
    transport: bytes = field(repr=False)
    """The X25519 key, 32 bytes."""

    def __repr__(self) -> str:
        return f"NodeKey({self.public_key})"

    @classmethod
    def generate(cls) -> Self:
        """New keys, from the system's randomness."""
        return cls(SigningKey.generate().encode(), PrivateKey.generate().encode())

    @property
    def public_key(self) -> PublicKey:
        """The half that everybody may know."""
        identity = SigningKey(self.identity).verify_key.encode()
        return PublicKey(identity, PrivateKey(self.transport).public_key.encode())

    def save(self, path: Path) -> None:
        """Writes a new file, mode 0600.

        Raises:
            ConfigError: There is a file already, or none can be written. Nothing was changed.
        """
        _save(path, "node key", {"identity": self.identity, "transport": self.transport})

    @classmethod
    def load(cls, path: Path) -> Self:
        """The keys in a file.

        Raises:
            ConfigError: It cannot be read, others can read it, or it holds something else.
        """
        return cls(**_load(path, "node key", ("identity", "transport")))


@dataclass(frozen=True, slots=True)
class ClusterSecret:
    """What all members of a cluster share, beside each other's public keys."""

    secret: bytes = field(repr=False)
    """The pre-shared key of the handshake, 32 bytes."""

    @classmethod
    def generate(cls) -> Self:
        """A new secret, from the system's randomness."""
        return cls(PrivateKey.generate().encode())

    def save(self, path: Path) -> None:
        """Writes a new file, mode 0600.

        Raises:
            ConfigError: There is a file already, or none can be written. Nothing was changed.
        """
        _save(path, "cluster secret", {"secret": self.secret})

    @classmethod
    def load(cls, path: Path) -> Self:
        """The secret in a file.

        Raises:
            ConfigError: It cannot be read, others can read it, or it holds something else.
        """
        return cls(**_load(path, "cluster secret", ("secret",)))


def _decoded(text: object) -> bytes | None:
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None


def _save(path: Path, kind: str, keys: Mapping[str, bytes]) -> None:
    content = {"turbopump": kind} | {
        name: base64.urlsafe_b64encode(key).rstrip(b"=").decode() for name, key in keys.items()
    }
    try:
        # Made for its owner alone from the start, and never over a key that something still depends on.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigError(
            [f"{path} is there already: keys are never overwritten; name another file"]
        ) from None
    except OSError as error:
        raise ConfigError([f"{path} cannot be written: {error.strerror}"]) from error
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ConfigError([f"{path} cannot be written: {error.strerror}"]) from error


def _load(path: Path, kind: str, names: tuple[str, ...]) -> dict[str, bytes]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError([f"{path}, a {kind}, cannot be read: {error.strerror}"]) from error
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError([f"{path} has the mode {mode:04o}, so others may use the {kind}: chmod 600 {path}"])
    wrong = ConfigError([f"{path} holds no {kind}: make one with `turbopump keygen`"])
    try:
        fields = json.loads(content) if len(content) <= FILE_BYTES_MAX else None
    except ValueError:
        raise wrong from None
    if not isinstance(fields, dict) or fields.pop("turbopump", None) != kind or set(fields) != set(names):
        raise wrong
    keys = {name: _decoded(text) for name, text in fields.items()}
    found = {name: key for name, key in keys.items() if key is not None and len(key) == KEY_BYTES}
    if len(found) != len(names):
        raise wrong
    return found
