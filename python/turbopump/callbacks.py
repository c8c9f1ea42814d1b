"""Callbacks: functions and commands that run after something happened to a key. Never on the data path.

The engine passes on only what some rule takes. Each callback has a queue, a number of workers and a time
limit of its own; what finds a queue full is dropped and counted. Not the feed for clients: `watch.py`.
"""

import asyncio
import inspect
import json
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from threading import Thread
from typing import Any
from urllib.parse import quote

from structlog.stdlib import BoundLogger

from turbopump._native import Changed
from turbopump.config import Callback, Terms
from turbopump.errors import ConfigError

GROUP = "turbopump.callbacks"  # of entry points
BACKOFF_SECONDS_MAX = 3600.0
PLAIN = "!\"#$&'()*+,-./:;<>?@[\\]^_`{}~"  # bytes that stand for themselves in a key, as in the pipe protocol

Function = Callable[[Changed], Any]
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class FailedError(Exception):
    """A command said that it failed, by its exit code."""


class Hook:
    """One callback: what it runs, what waits for it, and what came of it."""

    def __init__(self, name: str, terms: Terms, run: Callable[[Changed], Awaitable[None]]) -> None:
        self.name = name
        self.terms = terms
        self.queue: deque[Changed] = deque()
        self.workers = 0
        self.ran = self.failed = self.dropped = 0
        self._run = run
        self._prefix = terms.prefix.encode()

    def wants(self, change: Changed) -> bool:
        """Whether a change is of its kinds and keys."""
        return change.kind in self.terms.events and change.key.startswith(self._prefix)

    def rule(self) -> tuple[bytes, str]:
        """The same for the engine."""
        return self._prefix, ",".join(self.terms.events)

    async def attempt(self, change: Changed) -> None:
        """Runs it once.

        Raises:
            TimeoutError: It took too long.
        """
        async with asyncio.timeout(self.terms.timeout):
            await self._run(change)

    def stats(self) -> dict[str, object]:
        """What came of it so far."""
        return {
            "name": self.name,
            "prefix": self.terms.prefix,
            "run": self.ran,
            "failed": self.failed,
            "dropped": self.dropped,
            "queued": len(self.queue),
            "running": self.workers,
        }


class Callbacks:
    """All callbacks of a node.

    `add` any number, `start` once, `take` each change, `close` at the end.
    """

    def __init__(
        self,
        callbacks: Iterable[Callback],
        log: BoundLogger,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """The callbacks of a configuration.

        Args:
            callbacks: Each is looked up now.
            log: Where failures go.
            sleep: Waits before a retry; tests give one that does not.

        Raises:
            ConfigError: A function is not there; with every problem in it.
        """
        self._log = log
        self._sleep = sleep
        self._hooks: list[Hook] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn: Spawn | None = None
        self._set_rules: Callable[[list[tuple[bytes, str]]], object] | None = None
        self._closing = False
        problems = []
        for index, callback in enumerate(callbacks):
            try:
                self._hooks.append(_hook(callback))
            except ConfigError as error:
                problems += [f"callbacks[{index}].run: {problem}" for problem in error.problems]
        if problems:
            raise ConfigError(problems)

    def add(self, terms: Terms, function: Function) -> None:
        """Runs a function too: a coroutine function as a task, any other one in a thread."""
        name = f"{function.__module__}:{getattr(function, '__qualname__', repr(function))}"
        self._hooks.append(Hook(name, terms, _runner(function, terms)))
        self._tell_rules()

    def start(self, spawn: Spawn, set_rules: Callable[[list[tuple[bytes, str]]], object]) -> None:
        """Begins.

        Args:
            spawn: Makes a task that somebody owns.
            set_rules: Tells the engine what to pass on.
        """
        self._spawn, self._set_rules = spawn, set_rules
        self._tell_rules()

    def take(self, change: Changed) -> None:
        """Something happened."""
        for hook in self._hooks:
            if not hook.wants(change):
                continue
            if self._closing or len(hook.queue) >= hook.terms.queue:
                hook.dropped += 1
                continue
            hook.queue.append(change)
            if hook.workers < hook.terms.concurrency and self._spawn is not None:
                hook.workers += 1
                task = self._spawn(self._work(hook))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def close(self, seconds: float) -> None:
        """Runs what waits, as far as it takes no longer; the rest is ended and counted as dropped."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        self.end()

    def end(self) -> None:
        """Ends what runs still."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        for hook in self._hooks:
            hook.dropped += len(hook.queue)
            hook.queue.clear()

    def stats(self) -> list[dict[str, object]]:
        """What came of each: `run`, `failed`, `dropped`; and `queued` and `running` now."""
        return [hook.stats() for hook in self._hooks]

    def _tell_rules(self) -> None:
        if self._set_rules is not None and self._hooks:
            self._set_rules([hook.rule() for hook in self._hooks])

    async def _work(self, hook: Hook) -> None:
        try:
            while hook.queue:
                await self._tell(hook, hook.queue.popleft())
        finally:
            hook.workers -= 1

    async def _tell(self, hook: Hook, change: Changed) -> None:
        """Runs a callback until it does not fail, or as often as it may."""
        wait = hook.terms.backoff
        for left in range(hook.terms.retries, -1, -1):
            try:
                await hook.attempt(change)
            except asyncio.CancelledError:
                hook.dropped += 1
                raise
            except Exception as error:  # noqa: BLE001 - whatever a callback raises is its own affair
                again = left > 0 and not self._closing
                self._log.warning(
                    "callback failed", callback=hook.name, kind=change.kind, error=repr(error), again=again
                )
                if not again:
                    hook.failed += 1
                    return
                await self._sleep(wait)
                wait = min(2 * wait, BACKOFF_SECONDS_MAX)
            else:
                hook.ran += 1
                return


def _hook(callback: Callback) -> Hook:
    if isinstance(callback.run, str):
        return Hook(callback.run, callback, _runner(_found(callback.run), callback))
    command = callback.run

    async def run(change: Changed) -> None:
        await run_command(command, change)

    return Hook(command[0], callback, run)


def _found(name: str) -> Function:
    """The function with a name: `module:function`, or that of an entry point."""
    try:
        if ":" in name:
            module, _, path = name.partition(":")
            found: Any = import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
        else:
            [entry] = entry_points(group=GROUP, name=name)
            found = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError([f'"{name}": {error}: give a function that can be imported']) from error
    except ValueError as error:
        problem = f'"{name}": no installed package has one entry point of this name in {GROUP}'
        raise ConfigError([problem]) from error
    if not callable(found):
        raise ConfigError([f'"{name}": this is no function'])
    function: Function = found
    return function


def _runner(function: Function, terms: Terms) -> Callable[[Changed], Awaitable[None]]:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return function
    free = asyncio.Semaphore(terms.concurrency)

    async def run(change: Changed) -> None:
        await free.acquire()
        await _in_thread(function, change, free.release)

    return run


async def _in_thread(function: Function, change: Changed, over: Callable[[], None]) -> None:
    """Runs a function in a thread, which nobody can end: it keeps its place until it returns."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        over()
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def work() -> None:
        failure: BaseException | None = None
        try:
            function(change)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            failure = error
        with suppress(RuntimeError):  # the loop is over, and so is whoever waited
            loop.call_soon_threadsafe(settle, failure)

    # Not one of the loop's executor: a thread that hangs would hold up the end of the process.
    Thread(target=work, name="callback", daemon=True).start()
    await done


async def run_command(command: Sequence[str], change: Changed) -> None:
    """Runs a command without a shell, the change in its environment and as JSON on its stdin.

    Args:
        command: The program and its arguments.
        change: TURBOPUMP_KEY and `key` are percent-encoded, as in the pipe protocol.

    Raises:
        FailedError: It ended with another code than 0.
        OSError: It cannot be started.
    """
    told = {
        "key": quote(change.key, safe=PLAIN),
        "kind": change.kind,
        "version": change.version,
        "size": change.size,
        "revision": change.revision,
    }
    environment = os.environ | {f"TURBOPUMP_{name.upper()}": str(value) for name, value in told.items()}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # so that what it starts is killed with it
    )
    try:
        await process.communicate(json.dumps(told).encode() + b"\n")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()  # takes what is left of it, so that it is no zombie
    if process.returncode != 0:
        raise FailedError(f"{command[0]} ended with {process.returncode}")
