"""Where a node is: the path of its unix socket, or `tcp://host:port`."""

import os
from typing import NamedTuple
from urllib.parse import urlsplit

from turbopump.errors import ConnectionLostError, TurbopumpError, error_for

SOCKET_PATH = "/tmp/turbopump"  # noqa: S108 - where a node listens unless told otherwise
SOCKET_VARIABLE = "TURBOPUMP_SOCKET"


class Address(NamedTuple):
    """A unix path, or a TCP host and port."""

    text: str
    host: str | None = None
    port: int = 0

    def unreachable(self, error: OSError) -> ConnectionLostError:
        """The exception for a node that cannot be reached: nothing was sent."""
        reason = error.strerror or error
        return ConnectionLostError(f"no node answers at {self.text}: {reason}: start one or give its address")

    def closed(self, error: Exception | None) -> ConnectionLostError:
        """The exception for a connection that broke: what was in flight may have happened."""
        reason = f" ({error})" if error else ""
        return ConnectionLostError(
            f"{self.text} closed the connection{reason}: what was asked may have happened"
        )

    def silent(self, seconds: float) -> TurbopumpError:
        """The exception for a node that takes too long: what was in flight may happen still."""
        known = f"{self.text} did not answer in {seconds:g} s: what was asked may happen still"
        return error_for("no_reply", known)


def parse(text: str | None) -> Address:
    """The address in a text.

    Args:
        text: A path or `tcp://host:port`; None for the variable TURBOPUMP_SOCKET, then /tmp/turbopump.

    Raises:
        ValueError: It begins with `tcp://` and goes on wrongly.
    """
    text = text or os.environ.get(SOCKET_VARIABLE) or SOCKET_PATH
    if not text.startswith("tcp://"):
        return Address(text)
    parts = urlsplit(text)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{text}: {error}: write tcp://host:port") from error
    if not host or port is None or parts.path not in {"", "/"} or "@" in parts.netloc:
        raise ValueError(f"{text}: write tcp://host:port")
    return Address(text, host, port)
