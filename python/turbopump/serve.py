"""A node as a process of its own: signals, descriptors, log, systemd. Not the node: that is `node.py`.

SIGTERM and SIGINT drain: what was accepted is answered, then the process ends with 0. A second signal, or
`drain_seconds`, ends it with 1.
"""

import asyncio
import resource
import signal

from turbopump import log, notify
from turbopump.config import Config
from turbopump.node import Node

SPARE_DESCRIPTORS = 64  # besides clients: the process's own files, epoll, events, listeners

_log = log.logger("turbopump.serve")


def run(config: Config, name: str | None = None) -> int:
    """Serves until a signal or a SHUTDOWN.

    Args:
        config: The whole configuration.
        name: Which member of it to be; None where there is only one, or where its key tells.

    Returns:
        The exit code: 0 when every client got its answers, 1 otherwise.

    Raises:
        ConfigError: It could not start.
        NodeFailedError: The engine broke.
    """
    log.configure(config.log)
    raise_descriptor_limit(config.limits.max_connections + SPARE_DESCRIPTORS)
    return asyncio.run(_serve(config, name))


async def _serve(config: Config, name: str | None) -> int:
    stop = asyncio.Event()
    node = Node(config, name=name, listen=True, on_shutdown=stop.set)

    def signalled() -> None:
        if stop.is_set():
            _log.warning("stopping at once")
            node.abort()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled)
    async with node:
        notify.ready(f"serving on {' and '.join(node.addresses)}")
        _log.info("ready", node=node.member.name, members=len(config.members))
        await stop.wait()
        notify.stopping("answering what was accepted")
        _log.info("draining", seconds=config.drain_seconds)
    drained = node.drained
    clean = drained is not None and drained.aborted == 0
    _log.info("stopped", clean=clean)
    return 0 if clean else 1


def raise_descriptor_limit(wanted: int) -> None:
    """Allows the process as many open files as it may need, as far as the system lets it.

    Args:
        wanted: How many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        _log.warning(
            "fewer clients than configured: raise the hard `ulimit -n`", allowed=allowed, wanted=wanted
        )
