"""The changes on a node in this process, as they happen. Not callbacks: those have rules and limits."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

from turbopump._native import Changed, Watch
from turbopump.errors import error_for

BATCH = 256  # changes looked at between two turns of the event loop: about 50 us


class Changes:
    """Iterate over it with `async for`, in an `async with node.watch()` block."""

    def __init__(self, watch: Watch, is_running: Callable[[], bool]) -> None:
        """Changes from where `watch` is on.

        Args:
            watch: A place in the engine's feed.
            is_running: Tells whether the node still serves.
        """
        self._watch = watch
        self._is_running = is_running
        self._stirred = asyncio.Event()
        self._found: deque[Changed] = deque()
        self._revision = watch.revision

    @property
    def revision(self) -> int:
        """All changes up to this one have been told. A later `watch` can go on from there."""
        return self._revision

    def stir(self) -> None:
        """There may be changes, or the node is about to stop."""
        self._stirred.set()

    def close(self) -> None:
        """Ends the watching."""
        self._watch.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Changed:
        """The next change.

        Raises:
            UnavailableError: With the code `gone`: too many changes happened since, and some cannot be told.
                With `shutting_down`: the node stops.
        """
        while not self._found:
            self._stirred.clear()
            found, more = self._watch.read(BATCH)
            self._found.extend(found)
            if not found:
                self._revision = self._watch.revision
                await (asyncio.sleep(0) if more else self._more())
        change = self._found.popleft()
        self._revision = change.revision
        return change

    async def _more(self) -> None:
        if not self._is_running():
            raise error_for("shutting_down", "the node is shutting down")
        await self._stirred.wait()
