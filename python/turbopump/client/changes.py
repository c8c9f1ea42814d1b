"""What a node tells of its changes, on a connection that does nothing else. Ends when you leave it."""

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from turbopump._native import Answer
from turbopump.client import call
from turbopump.client.call import Call, KeyChange
from turbopump.errors import error_for

BEAT_SECONDS = 15.0  # a node with nothing to tell says where it is so often


class Stream(Protocol):
    """A connection, as far as it is needed here."""

    def stream(self, asked: Call[int], timeout: float) -> Iterator[Answer]:
        """Sends a command; its answers, for ever."""

    def close(self) -> None:
        """Ends the connection."""


class Place:
    """Where one who watches is, and what a node's answers say.

    Attributes:
        revision: All changes up to this one have been told. A later `watch` can go on from there.
    """

    revision: int

    def begin(self, asked: Call[int], answer: Answer) -> None:
        """The first answer says where it begins."""
        self.revision = asked.result(answer)

    def take(self, answer: Answer) -> KeyChange | None:
        """The change in a later answer, None if it only says where the node is."""
        if answer.code is not None:
            raise call.refusal(answer)
        self.revision = int(answer.params["revision"])
        return call.change(answer)


class Changes(Place):
    """The changes on a node as they happen; iterate over them, in a `with` block."""

    def __init__(self, connection: Stream, asked: Call[int], timeout: float) -> None:
        self._connection = connection
        self._answers = connection.stream(asked, timeout + BEAT_SECONDS)
        try:
            self.begin(asked, next(self._answers))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> KeyChange:
        """The next change.

        Raises:
            UnavailableError: With the code `gone`: too many changes happened since, and some cannot be told.
                With `shutting_down`: the node stops.
            ConnectionLostError: The connection broke. `revision` tells where to go on.
        """
        for answer in self._answers:
            if (found := self.take(answer)) is not None:
                return found
        raise StopIteration

    def close(self) -> None:
        """Ends the watching."""
        self._connection.close()
        self._answers = iter(())


def stray() -> Exception:
    """What an answer that was not asked for is."""
    return error_for("protocol", "the answers are not those to what was asked")
