"""What a node tells of its changes, for asyncio: on a connection that does nothing else."""

import asyncio
import socket
from collections import deque
from typing import Self

from turbopump._native import Answer, ClientCodec
from turbopump.client.address import Address
from turbopump.client.call import Call, KeyChange
from turbopump.client.changes import BEAT_SECONDS, Place

RECEIVE_BYTES = 64 * 1024


class AsyncChanges(Place):
    """The same for asyncio: `async for` in an `async with` block. Only what is asked for is read."""

    def __init__(self, where: Address, opened: socket.socket, codec: ClientCodec, timeout: float) -> None:
        self._where = where
        self._socket = opened
        self._codec = codec
        self._timeout = timeout + BEAT_SECONDS
        self._answers: deque[Answer] = deque()

    async def open(self, asked: Call[int]) -> None:
        """Sends the command and takes its first answer."""
        _, request = self._codec.request(asked.command, asked.params)
        await asyncio.get_running_loop().sock_sendall(self._socket, request)
        self.begin(asked, await self._next())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> KeyChange:
        """The next change.

        Raises:
            UnavailableError: With the code `gone`: too many changes happened since, and some cannot be told.
                With `shutting_down`: the node stops.
            ConnectionLostError: The connection broke. `revision` tells where to go on.
        """
        while (found := self.take(await self._next())) is None:
            pass
        return found

    def close(self) -> None:
        """Ends the watching."""
        self._socket.close()

    async def _next(self) -> Answer:
        while not self._answers:
            try:
                async with asyncio.timeout(self._timeout):
                    data = await asyncio.get_running_loop().sock_recv(self._socket, RECEIVE_BYTES)
            except TimeoutError as error:
                raise self._where.silent(self._timeout) from error
            except OSError as error:
                raise self._where.closed(error) from error
            if not data:
                raise self._where.closed(None)
            self._answers.extend(answer for answer in self._codec.feed(data) if answer.id != 0)
        return self._answers.popleft()
