"""Where a node is for the others: HOST:PORT of its UDP socket, as written, and what it resolves to."""

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final, Self

UDP_PORT: Final = 1593  # the one behind the first turbopump's
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_EXAMPLE = (
    'write an IP address or a name, with a port if it is not 1593: "10.0.0.1", "box1:1593", "[fd00::1]:1593"'
)


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a UDP port. Written, IPv6 is in brackets."""

    host: str
    """An IP address, or a name that is resolved when a node starts."""
    port: int = UDP_PORT
    """1 to 65535."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address that a text stands for.

        Raises:
            ValueError: It is none; the message says what to write.
        """
        if match := re.fullmatch(r"\[([^\]]*)\](?::(\d{1,5}))?", text):
            host, port = match[1], match[2]
            if not _is_ip(host, version=6):
                raise ValueError(f"[{host}] is no IPv6 address: {_EXAMPLE}")
        elif _is_ip(text, version=6):
            host, port = text, None
        else:
            host, colon, port = text.partition(":")
            if (colon and not re.fullmatch(r"\d{1,5}", port)) or not _is_host(host):
                raise ValueError(_EXAMPLE)
        number = int(port) if port else UDP_PORT
        if not 1 <= number <= 65535:
            raise ValueError(f"there is no port {number}: write 1 to 65535")
        return cls(host.lower(), number)

    @property
    def is_ip(self) -> bool:
        """Whether the host is an address already."""
        return _is_ip(self.host)

    @property
    def is_unspecified(self) -> bool:
        """Whether the host stands for every address of the box: to be bound, but nobody can send there."""
        return self.is_ip and ip_address(self.host).is_unspecified

    @property
    def is_multicast(self) -> bool:
        """Whether the host stands for a group of boxes."""
        return self.is_ip and ip_address(self.host).is_multicast


def resolve(address: Address) -> str:
    """IP:PORT of an address, with brackets around IPv6. May ask a name server; sends nothing to the address.

    Raises:
        ValueError: The name has no address; says what the system said.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"{address.host} has no address here ({reason}): correct it, or write an IP address"
        ) from error
    return str(Address(str(found[0][4][0]), address.port))


def _is_ip(host: str, version: int | None = None) -> bool:
    try:
        ip = ip_address(host)
    except ValueError:
        return False
    scoped = isinstance(ip, IPv6Address) and ip.scope_id is not None  # means another thing on every box
    return not scoped and version in {None, ip.version}


def _is_host(host: str) -> bool:
    """An IPv4 address or a name. What is all digits and dots was meant to be an address."""
    return _is_ip(host, version=4) or (
        _NAME.fullmatch(host) is not None and not re.fullmatch(r"[\d.]+", host)
    )
