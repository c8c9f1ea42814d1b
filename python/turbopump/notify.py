"""Tells systemd how the service is doing; says nothing where nobody asked.

Source: the manual page sd_notify(3), "Notes": datagrams of NAME=VALUE lines to the socket in NOTIFY_SOCKET.
"""

import os
import socket


def ready(status: str) -> bool:
    """The service can be used.

    Args:
        status: A line for `systemctl status`.

    Returns:
        Whether somebody was told.
    """
    return send(READY="1", STATUS=status)


def stopping(status: str) -> bool:
    """The service has begun to stop.

    Args:
        status: A line for `systemctl status`.

    Returns:
        Whether somebody was told.
    """
    return send(STOPPING="1", STATUS=status)


def send(**fields: str) -> bool:
    """Sends any of the fields that systemd knows.

    Returns:
        Whether somebody was told. A supervisor that has gone away is no reason to stop serving.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    if path.startswith("@"):
        path = "\0" + path[1:]  # the abstract namespace
    message = "\n".join(f"{name}={value.replace(chr(10), ' ')}" for name, value in fields.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        try:
            sender.sendto(message.encode(), path)
        except OSError:
            return False
    return True
