"""The progress bar behind `longstrand.runtime.progress`; apart, so that rich is imported only when one is shown."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressBar:
    """A context manager that yields itself; call it with the number of items done since the last call."""

    def __init__(self, description: str, total: float | None, *, unit: str) -> None:
        console = Console(stderr=True)
        self._unit = unit
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(description, total=total, rate="")

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, advance: float = 1, *, note: str = "") -> None:
        """Add finished items; ``note`` is shown after the throughput."""
        self._progress.advance(self._task, advance)
        speed = self._progress.tasks[self._task].speed
        rate = f"{speed:,.1f} {self._unit}/s" if speed else ""
        self._progress.update(self._task, rate=f"{rate} {note}".strip())
