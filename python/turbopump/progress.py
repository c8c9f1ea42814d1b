"""A progress bar on stderr, for what takes long enough to watch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn


@contextmanager
def sending(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how much of something has been sent.

    Args:
        what: Named beside the bar.
        total: Bytes.

    Yields:
        A function to call with the bytes sent so far.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda sent: progress.update(task, completed=sent)
