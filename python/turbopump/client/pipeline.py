"""Many commands in one round trip: collected, sent together, answered in order."""

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from turbopump._native import Answer
from turbopump.client import call
from turbopump.client.call import Bytes, Call, KeyVersion, StoredEntry
from turbopump.errors import TurbopumpError

T = TypeVar("T")


class Pending(Generic[T]):
    """The result of a command in a pipeline: there once the pipeline has run."""

    def __init__(self, asked: Call[T]) -> None:
        self.call = asked
        self.answer: Answer | None = None

    def result(self) -> T:
        """What the command of the same name returns.

        Raises:
            TurbopumpError: The node refused this command.
            RuntimeError: The pipeline has not run.
        """
        if self.answer is None:
            raise RuntimeError("the pipeline has not run: read results after its `with` block")
        return self.call.result(self.answer)


class Commands:
    """The commands that a pipeline takes; each returns what its result will be."""

    def __init__(self) -> None:
        self._pending: list[Pending[Any]] = []

    def _add(self, asked: Call[T]) -> Pending[T]:
        pending = Pending(asked)
        self._pending.append(pending)
        return pending

    def get(self, key: Bytes) -> Pending[bytes | None]:
        """The value under a key, None if there is none."""
        return self._add(call.get(key))

    def read(self, key: Bytes) -> Pending[StoredEntry | None]:
        """The value under a key with its version and expiry, None if there is none."""
        return self._add(call.read(key))

    def put(
        self,
        key: Bytes,
        value: Bytes,
        *,
        ttl: float | None = None,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: str | None = None,
        once: str | None = None,
    ) -> Pending[str]:
        """Writes a value, as `Client.put` does; the result is its version."""
        asked = call.put(
            key,
            value,
            ttl=ttl,
            if_absent=if_absent,
            if_present=if_present,
            if_version=if_version,
            once=once,
        )
        return self._add(asked)

    def delete(
        self, key: Bytes, *, if_version: str | None = None, once: str | None = None
    ) -> Pending[str | None]:
        """Deletes a key; the result is the version of the deletion, None if there was nothing."""
        return self._add(call.delete(key, if_version=if_version, once=once))

    def exists(self, key: Bytes) -> Pending[bool]:
        """Whether there is a value under a key."""
        return self._add(call.exists(key))

    def versions(self, key: Bytes) -> Pending[list[KeyVersion]]:
        """What the node remembers of a key, deletions too."""
        return self._add(call.versions(key))

    @property
    def results(self) -> list[Any]:
        """What the commands came to, in order; an error stands in its place as a value."""
        return [_value(pending) for pending in self._pending]

    def _settle(self, answers: Sequence[Answer], *, raise_errors: bool) -> None:
        for pending, answer in zip(self._pending, answers, strict=True):
            pending.answer = answer
        if raise_errors:
            for pending in self._pending:
                pending.result()


class Pipeline(Commands):
    """A pipeline of a `Client`: leave its `with` block to run it, raise in it to send nothing."""

    def __init__(self, run: Callable[[Sequence[Call[Any]]], Sequence[Answer]], *, raise_errors: bool) -> None:
        super().__init__()
        self._run = run
        self._raise_errors = raise_errors

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sends the commands and takes their answers.

        Raises:
            TurbopumpError: The connection broke; or a command was refused and errors are to be raised.
        """
        if kind is None and self._pending:
            answers = self._run([pending.call for pending in self._pending])
            self._settle(answers, raise_errors=self._raise_errors)


class AsyncPipeline(Commands):
    """A pipeline of an `AsyncClient`: leave its `async with` block to run it, raise in it to send nothing."""

    def __init__(
        self, run: Callable[[Sequence[Call[Any]]], Awaitable[Sequence[Answer]]], *, raise_errors: bool
    ) -> None:
        super().__init__()
        self._run = run
        self._raise_errors = raise_errors

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sends the commands and takes their answers.

        Raises:
            TurbopumpError: The connection broke; or a command was refused and errors are to be raised.
        """
        if kind is None and self._pending:
            answers = await self._run([pending.call for pending in self._pending])
            self._settle(answers, raise_errors=self._raise_errors)


def _value(pending: Pending[Any]) -> Any:
    try:
        return pending.result()
    except TurbopumpError as error:
        return error
