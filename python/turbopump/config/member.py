"""A node of the file: what is its own, and where clients and peers find it."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from turbopump.config.address import Address
from turbopump.config.public_key import PublicKey
from turbopump.config.section import Id, Mode, Section, Size, check_socket_path, is_loopback

SOCKET_PATH = "/tmp/turbopump"  # noqa: S108 - sticky: nobody else can replace a socket there
TCP_PORT = 1592  # the first turbopump's
WEIGHT_MAX = 1_000_000  # what the layout's solver takes


def check_bind(text: str) -> str:
    """The text, if it is HOST:PORT; any address of the box will do."""
    address = Address.parse(text)
    if not address.is_ip and address.host != "localhost":
        raise ValueError('write an IP address of this box, or "0.0.0.0" for all of them, with a port')
    return text


def check_address(text: str) -> str:
    """The text, if it is HOST:PORT to which others can send."""
    address = Address.parse(text)
    if address.is_unspecified:
        raise ValueError(
            f"{address.host} is every address of a box, so nobody can send to it: write the one that "
            'the other members reach, and this one as "bind"'
        )
    if address.is_multicast:
        raise ValueError(f"{address.host} is the address of a group: write that of one box")
    return text


def check_public_key(text: str) -> str:
    """The text, if it is a public key."""
    return str(PublicKey.parse(text))


class Tcp(Section):
    """A TCP listener, for clients on other machines. Off unless it stands in the file."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to bind. Beyond loopback anybody may knock, so a password is needed.",
    )
    port: int = Field(default=TCP_PORT, ge=0, le=65535, description="TCP port; 0 takes any free one.")
    password: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="What TCP clients must give first. Travels unencrypted: for networks you trust.",
    )

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.password is None and not is_loopback(self.host):
            raise ValueError(f'{self.host} is reachable from outside: add a "password" or bind "127.0.0.1"')
        return self


class Guests(Section):
    """Who may use the unix socket, by what the kernel says of the peer (SO_PEERCRED)."""

    uids: tuple[Id, ...] | None = Field(
        default=None,
        strict=False,
        description="User ids that may connect; null: whoever can open the socket.",
    )
    gids: tuple[Id, ...] | None = Field(
        default=None, strict=False, description="Group ids that may connect, beside the user ids."
    )


class Member(Section):
    """One node of the cluster: what is its own."""

    name: str = Field(
        default="node",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="Name in the cluster: letters, digits, dots, dashes; `serve --node NAME` picks a member.",
    )
    address: Annotated[str, AfterValidator(check_address)] | None = Field(
        default=None,
        description="Where the other members find it: HOST:PORT of its UDP socket, or HOST for port "
        "1593. Names are resolved when a node starts. Needed in a cluster.",
    )
    bind: Annotated[str, AfterValidator(check_bind)] | None = Field(
        default=None,
        description="IP:PORT to bind where that is another than its address, behind NAT for example; null: "
        "the address, or all of the box's if it is a name.",
    )
    public_key: Annotated[str, AfterValidator(check_public_key)] | None = Field(
        default=None,
        description="What it is known by: the 86 characters that `turbopump keygen` printed. "
        "Needed in a cluster.",
    )
    weight: int = Field(
        default=1,
        ge=0,
        le=WEIGHT_MAX,
        description="Its share of partitioned keys beside the others'. 0: it keeps none, and asks others.",
    )
    zone: str = Field(
        default="",
        max_length=63,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="What it is lost together with, such as a rack or a room: copies of a key go to "
        "different zones as far as there are any. At most 63 printable characters.",
    )
    socket: Annotated[str, AfterValidator(check_socket_path)] = Field(
        default=SOCKET_PATH, description="Path of the unix socket for clients on this machine."
    )
    socket_mode: Mode = Field(
        default=0o600,
        description="Mode of the socket file, in octal. Whoever may write to it may use the node.",
        json_schema_extra={"default": "0600"},
    )
    tcp: Tcp | None = Field(default=None, description="TCP listener beside the unix socket; null: none.")
    guests: Guests = Field(default=Guests(), description="Who of those who can open the socket is served.")
    reactors: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Threads that serve clients. One serves 300,000 requests a second and fills a core; "
        "more pay off only with cores to spare.",
    )
    max_memory: Size = Field(
        default=0,
        description="Bytes that entries may take, and values on their way in, and replaced ones while "
        "somebody reads them. Then writes are refused; nothing is evicted. 0: no limit.",
    )

    @property
    def udp(self) -> Address | None:
        """Where the other members find it, taken apart."""
        return None if self.address is None else Address.parse(self.address)

    @property
    def door(self) -> tuple[str, int]:
        """The host and port at which Redis clients find it, by CLUSTER or MOVED; port 0 if they cannot.

        Who listens on all addresses is found at its address for peers. Who listens on loopback is found by
        its own box alone, so not by a client that asks another one, unless all members are on one box.
        """
        host = self.udp.host if self.udp else ""
        if self.tcp is None or self.tcp.port == 0:
            return host, 0
        if is_loopback(self.tcp.host):
            return (self.tcp.host, self.tcp.port) if not host or is_loopback(host) else (host, 0)
        everywhere = self.tcp.host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
        return (host if host and everywhere else self.tcp.host), self.tcp.port
