"""`turbopump transfer`: files from one box to another, to try the datagram engine with."""

import base64
import binascii
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from nacl.encoding import RawEncoder
from nacl.hash import blake2b
from nacl.public import PrivateKey
from nacl.utils import random

from turbopump._native import transfer_send, transfer_serve
from turbopump.errors import ConfigError, ConnectionLostError, RequestError

PORT: Final = 1593
KEY_BYTES: Final = 32
CONGESTION: Final = ("bbr", "cubic", "udt")
"""Who may set the rate; the first does unless told otherwise. Why each: rust/udt/src/congestion."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Whoever has it may send to the one who made it, and can be sure to talk to no other."""

    public_key: bytes
    """The receiver's X25519 key, 32 bytes."""
    secret: bytes = field(repr=False)
    """What the sender's key and the one that both share are made of, 32 bytes."""

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(self.public_key + self.secret).rstrip(b"=").decode()

    @classmethod
    def issue(cls) -> tuple[PrivateKey, Self]:
        """A receiver's new key, and the ticket for it. Its text is typed as an argument: no `-` is first."""
        while True:
            key = PrivateKey.generate()
            ticket = cls(bytes(key.public_key), random(KEY_BYTES))
            if not str(ticket).startswith("-"):
                return key, ticket

    @classmethod
    def parse(cls, text: str) -> Self:
        """The ticket that `str` wrote.

        Raises:
            ConfigError: It is none.
        """
        try:
            both = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            both = b""
        if len(both) != 2 * KEY_BYTES:
            raise ConfigError(["the ticket is the 86 characters that `turbopump transfer serve` printed"])
        return cls(both[:KEY_BYTES], both[KEY_BYTES:])

    @property
    def sender(self) -> PrivateKey:
        """The sender's X25519 key."""
        return PrivateKey(self._derived(b"sender"))

    @property
    def shared(self) -> bytes:
        """The pre-shared key, 32 bytes."""
        return self._derived(b"shared")

    def _derived(self, purpose: bytes) -> bytes:
        return blake2b(b"", KEY_BYTES, key=self.secret, person=purpose, encoder=RawEncoder)


def peer(text: str) -> tuple[Ticket, str]:
    """The ticket and the address, IP and port, of TICKET@HOST:PORT.

    Raises:
        ConfigError: It is no such text, or the host has no address.
    """
    ticket, at, address = text.partition("@")
    if not at:
        raise ConfigError(["write the peer as `turbopump transfer serve` printed it: TICKET@HOST:PORT"])
    return Ticket.parse(ticket), _resolved(address)


def _resolved(address: str) -> str:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        found = socket.getaddrinfo(host or None, int(port), type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError([f"{address!r} is no HOST:PORT that has an address: {error}"]) from error
    ip, number = str(found[0][4][0]), int(found[0][4][1])
    return f"[{ip}]:{number}" if ":" in ip else f"{ip}:{number}"


def send(
    file: Path,
    to: str,
    watch: Callable[[Mapping[str, Any]], None],
    *,
    congestion: str = CONGESTION[0],
) -> Mapping[str, Any]:
    """Sends a file. Blocks until it is there.

    Args:
        file: Its last part is what it is called over there.
        to: TICKET@HOST:PORT.
        watch: Called with the figures so far, about ten times a second.
        congestion: Who sets the rate, one of CONGESTION.

    Returns:
        The figures of the whole.

    Raises:
        ConfigError: The peer is not written right, or the file cannot be read.
        RequestError: The other side does not keep the file.
        ConnectionLostError: Nobody answers to the ticket there, or the connection broke.
    """
    ticket, address = peer(to)
    options = {
        "private": bytes(ticket.sender),
        "peer": ticket.public_key,
        "shared": ticket.shared,
        "address": address,
        "path": file,
        "congestion": congestion,
    }

    def goes_on(progress: Mapping[str, Any]) -> bool:
        watch(progress)
        return True

    try:
        return transfer_send(options, goes_on)
    except ValueError as error:
        raise RequestError(str(error)) from error
    except ConnectionError as error:
        raise ConnectionLostError(str(error)) from error
    except OSError as error:
        raise ConfigError([str(error)]) from error


def serve(
    directory: Path,
    listen: str,
    on_ready: Callable[[str], None],
    watch: Callable[[Mapping[str, Any]], None],
    *,
    congestion: str = CONGESTION[0],
) -> None:
    """Receives files into a directory until it is interrupted.

    Args:
        directory: Where files go. None there is ever replaced.
        listen: HOST:PORT; port 0 takes any free one.
        on_ready: Called once, with what the other side must be told: TICKET@HOST:PORT.
        watch: Called with the figures of a file, about ten times a second and when it is there.
        congestion: Who sets the rate of what this side sends, which are answers: one of CONGESTION.

    Raises:
        ConfigError: The address cannot be used, or there is no such directory.
    """
    if not directory.is_dir():
        raise ConfigError([f"{directory} is no directory: make it first"])
    key, ticket = Ticket.issue()
    options = {
        "private": bytes(key),
        "peer": bytes(ticket.sender.public_key),
        "shared": ticket.shared,
        "address": _resolved(listen),
        "path": directory,
        "congestion": congestion,
    }

    def goes_on(progress: Mapping[str, Any]) -> bool:
        watch(progress)
        return True

    try:
        transfer_serve(options, lambda bound: on_ready(f"{ticket}@{_reachable(bound)}"), goes_on)
    except OSError as error:
        raise ConfigError([str(error)]) from error


def _reachable(address: str) -> str:
    """The address as others may write it: of all of a box's, the one that it goes out with."""
    host, _, port = address.rpartition(":")
    if host not in {"0.0.0.0", "[::]"}:  # noqa: S104 - compared, not bound
        return address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: it only asks which way it would go
            host = probe.getsockname()[0]
        except OSError:
            host = socket.gethostname()
    return f"{host}:{port}"


def summary(figures: Mapping[str, Any]) -> str:
    """The figures of a file that is there, as a line."""
    seconds = max(figures["seconds"], 1e-9)
    sent = figures["packets_sent"]
    lost = (
        f", {figures['packets_lost'] / sent:.2%} of packets lost" if sent and figures["packets_lost"] else ""
    )
    return (
        f"{figures['name']}: {figures['bytes']:,} bytes in {seconds:.2f} s, "
        f"{figures['bytes'] * 8 / seconds / 1e6:,.1f} Mbit/s, "
        f"round trip {figures['rtt_min_ms']:.2f} ms{lost}"
    )
