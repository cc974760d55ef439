"""The Hugging Face Trainer with checkpoints that survive a kill, and evaluation by exact sums and counts.

What is added, and why (``docs/ARCHITECTURE.md``): a checkpoint is written under a temporary name, flushed, listed in a
manifest and renamed, because the stock Trainer resumes silently from a checkpoint without optimizer; the running mean
of the loss is part of the state, so that a resumed run logs the same rows; evaluation is a function that is passed in.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.serialization import config as serialization
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer import TRAINER_STATE_NAME

from longstrand.errors import CheckpointError, TrainingError, UsageError
from longstrand.models.adapters import is_wrapped, save_adapter_files
from longstrand.models.memory.losses import counted_batch
from longstrand.runtime import gather, on_rank_0, progress_bar, rank, world_size, write_json
from longstrand.training.curriculum import Curriculum
from longstrand.training.run_folder import Mark, MetricsLog, RunFolder, flushing, write_manifest
from longstrand.training.settings import TrainingConfig, TrainSettings
from longstrand.training.throughput import ThroughputMeter

Evaluate = Callable[[nn.Module], dict[str, float]]
SCHEDULES = {"constant": "constant_with_warmup"}
STATE_FILE = "longstrand_state.json"
STOPPING = (signal.SIGTERM, signal.SIGUSR1)
"""Signals of a queue, after which a run saves its state and ends; Ctrl-C is the third."""


def split_batch(batch_size: int, most: int | None) -> tuple[int, int]:
    """Share out a batch: sequences of a forward pass, and passes of each process before an optimizer step.

    Args:
        batch_size: sequences of an optimizer step, over all processes.
        most: sequences of a forward pass, at most.

    Raises:
        UsageError: the processes cannot have equally many.
    """
    share, rest = divmod(batch_size, world_size())
    if rest or share == 0:
        raise UsageError(
            f"a batch of {batch_size} sequences cannot be shared out equally over {world_size()} processes; start "
            f"as many as divide it, or, in a new run, set training.batch_size to a multiple of {world_size()}, no "
            "larger than the training rows."
        )
    micro = next(size for size in range(min(most or share, share), 0, -1) if share % size == 0)
    return micro, share // micro


def training_arguments(
    folder: Path, training: TrainSettings | TrainingConfig, batch: tuple[int, int], device: torch.device, **more: Any
) -> TrainingArguments:
    """Translate the settings that both kinds of training have; ``batch`` as `split_batch` gives it."""
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch[0],
        gradient_accumulation_steps=batch[1],
        learning_rate=training.learning_rate,
        lr_scheduler_type=SCHEDULES.get(training.schedule, training.schedule),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        bf16=training.precision == "bf16",
        seed=training.seed,
        data_seed=training.seed,
        use_cpu=device.type == "cpu",
        dataloader_num_workers=training.num_workers,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        logging_strategy="steps",
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        save_strategy="steps",
        disable_tqdm=True,
        report_to="none",
        **more,
    )


class LongstrandTrainer(Trainer):
    """A Trainer that writes into a `RunFolder`.

    Args:
        run: the open run folder.
        title: of the progress bar.
        training: the settings.
        evaluate: takes the model and gives named numbers; called every ``eval_steps``. With
            ``metric_for_best_model`` in ``args``, its best checkpoint is kept.
        keep: checkpoints that are kept beside the best one.
        throughput: measures the rates that go into every training row.
        curriculum: cuts the batches to the segments of the current stage, for a model with memory.
        steps_per_epoch: of one pass over the rows, where the data set holds several; ``epoch`` in the rows follows it.
        trainer: all other keywords are the Trainer's own.

    Attributes:
        stopped_by: name of the signal that stopped training, or None.
    """

    def __init__(
        self,
        *,
        run: RunFolder,
        title: str,
        training: TrainSettings | TrainingConfig,
        evaluate: Evaluate,
        keep: int = 1,
        throughput: ThroughputMeter | None = None,
        curriculum: Curriculum | None = None,
        steps_per_epoch: int | None = None,
        **trainer: Any,
    ) -> None:
        # Trainer wants a data set as soon as evaluation is on; ours is inside the function.
        super().__init__(eval_dataset=[], **trainer)
        if bool(self.args.fsdp) != self.is_fsdp_enabled:
            raise UsageError("training.parallel=fsdp needs GPUs: accelerate trains whole models on processors.")
        self.remove_callback(PrinterCallback)
        self.run, self.curriculum, self.steps_per_epoch = run, curriculum, steps_per_epoch
        self.metrics_log = MetricsLog(run.path / "metrics.jsonl")
        self.counts = {"tokens": 0, "bases": 0}
        self._evaluate_function = evaluate
        self._keep = keep
        self._not_shared = [0, 0]
        self._staging: Path | None = None
        self._throughput = throughput
        self.stopped_by: str | None = None
        self.add_callback(RunCallback(self))
        self.add_callback(ProgressCallback(title))
        self._tensorboard = training.tensorboard

    # Resuming -------------------------------------------------------------------------------------------------------

    def train_or_resume(self) -> Any:
        """Train from the newest complete checkpoint, or from the start."""
        checkpoint = on_rank_0(self._go_back)
        if self._tensorboard:
            self.add_callback(tensorboard_callback(self.run.path / "tensorboard", checkpoint))
        return self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def _go_back(self) -> Path | None:
        """Find the newest complete checkpoint, and remove what came after it."""
        checkpoint = self.run.newest_checkpoint()
        step = int(checkpoint.name[11:]) if checkpoint else 0
        self.metrics_log.cut_back(step)
        for stale in self.run.checkpoints():
            if checkpoint is None or int(stale.name[11:]) > step:
                self.run.remove(stale)
        return checkpoint

    def restore_running_state(self) -> None:
        """Take up the running loss and the counts of the checkpoint that training resumed from."""
        file = self.run.path / f"checkpoint-{self.state.global_step}" / STATE_FILE
        if self.state.global_step == 0 or not file.exists():
            return
        kept = json.loads(file.read_text())
        self._tr_loss = torch.tensor(kept["loss_sum"], device=self.args.device)
        self._globalstep_last_logged = kept["last_logged_step"]
        self.counts = kept["counts"]
        self._note_evaluations()

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Collect the batches of a step, cut to the current number of segments, before their targets are counted."""
        if self.curriculum is not None:
            epoch_iterator = self.curriculum.cut_all(epoch_iterator, self.state.global_step, num_batches)
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Any:
        config = self.accelerator.unwrap_model(self.model, keep_torch_compile=False).config
        samples = [counted_batch(batch, config) for batch in batch_samples]
        return super()._get_num_items_in_batch(samples, device)

    def _note_evaluations(self) -> None:
        """Tell the curriculum what has been measured so far."""
        if self.curriculum is not None:
            self.curriculum.rows = on_rank_0(self.metrics_log.rows)

    def _share_counts(self) -> None:
        """Add up what the processes have read since the last time."""
        for mine in gather(self._not_shared):
            self.counts = {name: count + more for (name, count), more in zip(self.counts.items(), mine)}
        self._not_shared = [0, 0]

    def get_train_dataloader(self) -> Any:
        """Make the stock loader, with workers that leave signals to the main process.

        A scheduler or Ctrl-C signals the whole process group; a worker that died of it would take the run down before
        the checkpoint is written.
        """
        loader = super().get_train_dataloader()
        for part in {id(part): part for part in (loader, getattr(loader, "base_dataloader", loader))}.values():
            part.worker_init_fn = partial(_start_quietly, part.worker_init_fn)
        return loader

    # Saving ---------------------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        name = f"checkpoint-{self.state.global_step}"
        final = self.run.path / name
        if on_rank_0(final.exists):
            return
        self._share_counts()
        self._loss_sum = sum(gather(float(self._tr_loss))) / self.args.world_size
        self._staging = self.run.path / f"tmp-save-{self.state.global_step}"
        try:
            if self.args.should_save and self._staging.exists():
                shutil.rmtree(self._staging)
            self.accelerator.wait_for_everyone()
            # the manifest has checksums, faster ones than torch's
            with serialization.patch({"save.compute_crc32": False}), flushing(self._staging / name) as mine:
                super()._save_checkpoint(model, trial)
            marks = {file: mark for some in gather(mine) for file, mark in some.items()}
            if self.args.should_save:
                self._complete(self._staging / name, final, marks)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(self._staging, ignore_errors=True)
            raise self._cannot_save(name, error) from error
        finally:
            staging, self._staging = self._staging, None
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
            self._rotate()
        self.accelerator.wait_for_everyone()

    def _cannot_save(self, name: str, error: Exception) -> CheckpointError:
        newest = self.run.newest_checkpoint()
        left = f"{newest.name} is intact" if newest else "no earlier checkpoint exists"
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        if "enforce fail" in reason:  # how torch.save says that the file is shorter than what it wrote
            reason = "the file came out too short; the disk may be full"
        return CheckpointError(
            f"{self.run.path}: {name} cannot be written ({reason}); {left}: make room and run the same command again."
        )

    def _complete(self, staged: Path, final: Path, marks: Mapping[str, Mark]) -> None:
        best = self.state.best_global_step
        if best:
            self.state.best_model_checkpoint = str(self.run.path / f"checkpoint-{best}")
            self.state.save_to_json(str(staged / TRAINER_STATE_NAME))
        if self.is_fsdp_enabled:
            self.model.config.save_pretrained(staged)
        kept = {"loss_sum": self._loss_sum, "last_logged_step": self._globalstep_last_logged, "counts": self.counts}
        write_json(staged / STATE_FILE, kept)
        write_manifest(staged, marks)
        os.replace(staged, final)

    def _rotate(self) -> None:
        best = self.state.best_global_step
        for folder in self.run.checkpoints()[self._keep :]:
            if not best or folder.name != f"checkpoint-{best}":
                self.run.remove(folder)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the weights and config, in one process; unlike the stock Trainer, without a pickle of the arguments."""
        assert output_dir is not None
        if not self.args.should_save:
            return
        os.makedirs(output_dir, exist_ok=True)
        if is_wrapped(self.model):
            save_adapter_files(self.model, output_dir, state_dict)
        else:
            self.model.save_pretrained(output_dir, state_dict=state_dict)

    # Measuring ------------------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Count tokens and bases, then do the stock step."""
        if "attention_mask" in inputs:
            self._not_shared[0] += int(inputs["attention_mask"].sum())
        self._not_shared[1] += int(inputs.pop("num_bases", torch.zeros(1)).sum())
        return super().training_step(model, inputs, num_items_in_batch)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Give 0: utilisation is computed from the token counts, by `longstrand.training.throughput`."""
        return 0

    def evaluate(self, *unused: Any, **also_unused: Any) -> dict[str, float]:
        """Call the evaluation function without gradients and log its numbers with the prefix ``eval_``.

        One process measures for all (of a model whose weights are shared out, all do), so that all decide alike.
        """
        measure = self._evaluate_function
        if measure is None:
            return {}
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), self.compute_loss_context_manager():
                values = gather(measure(model))[0] if self.is_fsdp_enabled else on_rank_0(lambda: measure(model))
        finally:
            model.train(was_training)
        metrics = {f"eval_{name}": float(value) for name, value in values.items()}
        self.log(dict(metrics))
        self._note_evaluations()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add a row to ``metrics.jsonl``; the stock Trainer's summary at the end is not a row."""
        if not math.isfinite(logs.get("loss", 0.0)):
            raise TrainingError(
                f"{self.run.path}: training diverged before step {self.state.global_step} "
                f"(the loss is {logs['loss']}); "
                "use a lower learning rate or more warm-up steps, and another output."
            )
        self._share_counts()
        if "loss" in logs and self.curriculum is not None:
            logs["segments"] = self.curriculum.stage(self.state.global_step - 1)
        if "loss" in logs and self._throughput is not None:
            logs.update(self._throughput.measure(self.counts))
        super().log(logs, start_time)
        if self.steps_per_epoch:
            logs["epoch"] = round(self.state.global_step / self.steps_per_epoch, 4)
        if rank() != 0 or "train_runtime" in logs:
            return
        row = {"step": self.state.global_step, **logs, **{f"{name}_seen": count for name, count in self.counts.items()}}
        self.metrics_log.append(row)


def _start_quietly(stock: Callable[[int], None] | None, worker: int) -> None:
    """Start a data worker: ignore the signals that stop a run, then do what the stock Trainer does."""
    for number in (*STOPPING, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if stock is not None:
        stock(worker)


class RunCallback(TrainerCallback):
    """What a run does beside the stock Trainer's steps: it resumes, stops on a signal, and ends with all its numbers.

    On SIGTERM, SIGUSR1 (what a queue sends before its time limit) or Ctrl-C in any process the step is finished, a
    checkpoint saved, and training stopped. The last step is logged, evaluated and saved, whatever the intervals.
    Evaluation and saving are left out of the clock.
    """

    def __init__(self, trainer: LongstrandTrainer) -> None:
        self._trainer = trainer
        self._previous: dict[int, Any] = {}

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Take over the signals; restore the running state, which the Trainer has just reset."""
        for number in (*STOPPING, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        self._trainer.restore_running_state()
        self._restart_clock()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._trainer.stopped_by is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._trainer.stopped_by = signal.Signals(number).name

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask the Trainer to save and stop after a signal, and for all three after the last step."""
        stopped_by = next((name for name in gather(self._trainer.stopped_by) if name is not None), None)
        self._trainer.stopped_by = stopped_by
        if stopped_by is not None:
            control.should_save = control.should_training_stop = True
        if state.global_step >= state.max_steps:
            control.should_log = control.should_evaluate = control.should_save = True

    def on_evaluate(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Write ``metrics.csv``, and leave the evaluation out of the training time."""
        self._write_csv()
        self._restart_clock()

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the saving out of the training time."""
        self._restart_clock()

    def on_train_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Write ``metrics.csv``, and give the signals back."""
        self._write_csv()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _write_csv(self) -> None:
        if rank() == 0:
            self._trainer.metrics_log.write_csv(self._trainer.metrics_log.path.with_suffix(".csv"))

    def _restart_clock(self) -> None:
        if self._trainer._throughput is not None:
            self._trainer._throughput.restart(self._trainer.counts)


class ProgressCallback(TrainerCallback):
    """Shows steps, tokens a second, time left and the newest numbers; silent where there is no terminal."""

    def __init__(self, description: str = "train") -> None:
        self._description = description
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar at the step that training starts or resumes from."""
        if rank() == 0:
            self._bar = progress_bar(self._description, total=state.max_steps, unit="steps")
            self._bar.update(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance by one step."""
        if self._bar is not None:
            self._bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the newest loss, hold-out loss and tokens a second."""
        shown = {"loss": "loss", "eval_loss": "hold-out", "tokens_per_second": "tokens/s"}
        parts = [f"{label} {logs[key]:,.4g}" for key, label in shown.items() if logs and key in logs]
        if self._bar is not None and parts:
            self._bar.set_postfix_str(" · ".join(parts))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def tensorboard_callback(folder: Path, checkpoint: Path | None) -> TensorBoardCallback:
    """Write every number to TensorBoard; later events than those of the checkpoint are purged.

    Raises:
        UsageError: the package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "training.tensorboard needs the package tensorboard: pip install 'longstrand[tensorboard]', or leave "
            "the setting out; metrics.csv holds the same numbers."
        ) from None
    step = int(checkpoint.name[11:]) if checkpoint else 0
    return TensorBoardCallback(SummaryWriter(str(folder), purge_step=step + 1) if rank() == 0 else None)
