"""A node's secrets: made here, kept in files that only their owner reads, handed to the engine once.

Not the cryptography of the wire: that is the engine's. A node has two key pairs, so that the one that every
packet depends on can be replaced without a new name for the node: Ed25519 for who it is (RFC 8032), X25519
for what it sends (RFC 7748). The cluster shares one more secret: who only knows public keys stays outside.
"""

import base64
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Self

from nacl.public import PrivateKey
from nacl.signing import SigningKey

from turbopump.config import Cluster, Config, Member, PublicKey, Secrets
from turbopump.config.public_key import KEY_BYTES, decoded
from turbopump.errors import ConfigError

FILE_BYTES_MAX: Final = 4096
"""A file of keys has some hundred bytes: what is larger is something else, and is not read whole."""
SHOWN_MAX: Final = 3  # paths that a message names: enough to see where keys are looked for


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


def identify(config: Config, name: str | None = None) -> Secrets:
    """Finds which member of a cluster this node is, by the private keys that it can read.

    Args:
        config: The whole configuration; it has a cluster section.
        name: The member that it is to be; needed only where there are the keys of several.

    Raises:
        ConfigError: There is no key of that member, or of any; or of several, and none was named. Or a file
            is no key, or others may read it.
    """
    key, member = _own(config, name)
    secret = ClusterSecret.load(_cluster(config).secret_file(member.name))
    return Secrets(member.name, key.transport, secret.secret)


def own_name(config: Config, name: str | None = None) -> str:
    """The name of the member that this node is, with or without a cluster.

    Raises:
        ConfigError: As `identify`, and `Config.member` for a node alone.
    """
    return config.member(name).name if config.cluster is None else _own(config, name)[1].name


def mistakes(config: Config, name: str | None = None) -> list[str]:
    """What is wrong with the secrets of a cluster that are on this box. Those of other boxes are not missed.

    Args:
        config: The whole configuration.
        name: The member whose key has to be here; None for none.
    """
    if config.cluster is None:
        return []
    files = _files(config)
    here = [path for path in files if path.exists()]
    found: list[str] = []
    for path in here:
        found += _problems(partial(_keyed, config, path, files[path]))
    if name is not None:
        found += _problems(partial(_own, config, name))
    secrets = sorted({config.cluster.secret_file(member.name) for member in config.members})
    there = [path for path in secrets if path.exists()]
    for path in there or secrets[: len(here)]:  # a node that has its key needs one
        found += _problems(partial(ClusterSecret.load, path))
    return list(dict.fromkeys(found))


def _problems(check: Callable[[], object]) -> Sequence[str]:
    try:
        check()
    except ConfigError as error:
        return error.problems
    return ()


def _cluster(config: Config) -> Cluster:
    if config.cluster is None:
        raise ConfigError(["cluster: missing; a node alone has no keys"])
    return config.cluster


def _files(config: Config) -> dict[Path, list[Member]]:
    """Where keys may be, each with the members whose key it may be."""
    files: dict[Path, list[Member]] = {}
    for member in config.members:
        files.setdefault(_cluster(config).key_file(member.name), []).append(member)
    return files


def _own(config: Config, name: str | None) -> tuple[NodeKey, Member]:
    """The key that makes this node a member, and the member."""
    files = _files(config)
    if name is not None:
        member = config.member(name)
        path = _cluster(config).key_file(name)
        return _keyed(config, path, [member])
    here = [path for path in files if os.access(path, os.R_OK)] or [path for path in files if path.exists()]
    if not here:
        places = ", ".join(map(str, list(files)[:SHOWN_MAX])) + (", ..." if len(files) > SHOWN_MAX else "")
        raise ConfigError(
            [f"no private key of a member is here: put this node's where the file says ({places})"]
        )
    found = {member.name: (key, member) for key, member in (_keyed(config, p, files[p]) for p in here)}
    if len(found) > 1:
        raise ConfigError([f"the keys of {', '.join(found)} are here: say which to be with --node NAME"])
    return next(iter(found.values()))


def _keyed(config: Config, path: Path, expected: Sequence[Member]) -> tuple[NodeKey, Member]:
    """The key in a file and the member that it makes, which has to be one of those expected."""
    key = NodeKey.load(path)
    public = str(key.public_key)
    owner = next((member for member in config.members if member.public_key == public), None)
    if owner is None:
        raise ConfigError(
            [f"{path} is the key of no member: write its public key into the file, {public}, or replace it"]
        )
    if owner not in expected:
        names = " or ".join(member.name for member in expected)
        raise ConfigError([f"{path} is the key of {owner.name}, not of {names}: put each where it belongs"])
    return key, owner


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
    keys = {name: decoded(text) for name, text in fields.items()}
    found = {name: key for name, key in keys.items() if key is not None and len(key) == KEY_BYTES}
    if len(found) != len(names):
        raise wrong
    return found
