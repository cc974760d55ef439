"""Callbacks: a progress bar with throughput and time left, TensorBoard, and a clean stop on SIGTERM."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from longstrand.errors import UsageError
from longstrand.runtime import gather, progress, rank
from longstrand.training.run_folder import MetricsLog


class ProgressCallback(TrainerCallback):
    """Shows steps, tokens a second, time left and the newest numbers; silent where there is no terminal."""

    def __init__(self, description: str = "train") -> None:
        self._description = description
        self._note = ""
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar at the step that training starts or resumes from."""
        if rank() == 0:
            self._bar = progress(self._description, total=state.max_steps, unit="steps").__enter__()
            self._bar(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance by one step."""
        if self._bar is not None:
            self._bar(1, note=self._note)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the newest loss, hold-out loss and tokens a second."""
        shown = {"loss": "loss", "eval_loss": "hold-out", "tokens_per_second": "tokens/s"}
        parts = [f"{label} {logs[key]:,.4g}" for key, label in shown.items() if logs and key in logs]
        self._note = " · ".join(parts) or self._note

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


class TensorBoardCallback(TrainerCallback):
    """Writes every number to TensorBoard; on resume, later events of the killed run are purged."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError(
                "training.tensorboard needs the package tensorboard: pip install 'longstrand[tensorboard]', or leave "
                "the setting out; metrics.csv holds the same numbers."
            ) from None
        self._make, self._folder = SummaryWriter, folder
        self._writer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the event file."""
        if rank() == 0:
            self._writer = self._make(str(self._folder), purge_step=state.global_step + 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Write one row."""
        if self._writer is not None and logs and "train_runtime" not in logs:
            for name, value in logs.items():
                group = f"evaluation/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
                self._writer.add_scalar(group, value, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


class StopOnSignal(TrainerCallback):
    """On SIGTERM or Ctrl-C in any process: finish the step, save a checkpoint, stop. ``received`` names the signal."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[int, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take over the signals."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask the Trainer to save and stop."""
        self.received = next((name for name in gather(self.received) if name is not None), None)
        if self.received is not None:
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class CsvCallback(TrainerCallback):
    """Rewrites ``metrics.csv`` from ``metrics.jsonl`` after every evaluation and at the end."""

    def __init__(self, log: MetricsLog) -> None:
        self._log = log

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the table."""
        if rank() == 0:
            self._log.write_csv(self._log.path.with_suffix(".csv"))

    on_train_end = on_evaluate


class FinishLastStep(TrainerCallback):
    """Logs, evaluates and saves the last step, whatever the intervals."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for all three."""
        if state.global_step >= state.max_steps:
            control.should_log = control.should_evaluate = control.should_save = True
