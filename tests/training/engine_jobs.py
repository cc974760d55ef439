"""Pre-train toys whose rows are very unequal, in one process or in two that share the weights out (FSDP2 on gloo).

accelerate shares weights out on GPUs alone. `as_if_on_gpus` makes it take gloo for one, so that everything behind that
check runs: the Trainer, accelerate's preparation, fully_shard, clipping, and sharded checkpoints.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.state import DistributedType, PartialState
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from transformers import TrainerCallback

from longstrand.config import build
from longstrand.runtime import gather, rank
from longstrand.training import pretrain as pretraining
from longstrand.training.engine import write_plain, write_sharded
from longstrand.training.settings import PretrainConfig
from longstrand.training.trainer import LongstrandTrainer

STEPS, STOP = 12, 6
JOBS = ("packed", "memory", "shared_out")


@contextmanager
def as_if_on_gpus(wanted: bool) -> Iterator[None]:
    """Let accelerate take gloo for GPUs inside; every `TrainingArguments` looks anew."""
    before = PartialState._prepare_backend
    if wanted:
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        PartialState._prepare_backend = lambda self, *args, **options: ("gloo", DistributedType.MULTI_GPU)
    yield
    PartialState._prepare_backend = before
    os.environ.pop("ACCELERATE_TORCH_DEVICE", None)


class Stopping(LongstrandTrainer):
    """Gets SIGUSR1 in one process during a step, and writes down how many targets each process had."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.targets: list[list[int]] = []
        self.add_callback(_Signal())

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
        self.targets.append(gather(int((inputs["labels"] >= 0).sum())))
        return super().training_step(model, inputs, *rest)

    def train_or_resume(self) -> Any:
        done = super().train_or_resume()
        if rank() == 0:
            with open(self.run.path / "targets.jsonl", "a") as file:
                file.writelines(json.dumps(numbers) + "\n" for numbers in self.targets)
        return done


class _Signal(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == STOP - 1 and rank() == args.world_size - 1:
            os.kill(os.getpid(), signal.SIGUSR1)


def settings(folder: Path, job: str, parallel: str) -> PretrainConfig:
    memory = {"num_tokens": 2, "segment_length": 14, "segments": 3}
    training = {
        "steps": STEPS, "batch_size": 8, "micro_batch_size": 2, "warmup_steps": 2, "log_every": 1, "eval_every": 6,
        "eval_windows": 4, "save_every": 50, "num_workers": 0, "device": "cpu", "threads": 1, "learning_rate": 1e-2,
        "max_grad_norm": 0.05, "references": False, "parallel": parallel, "snapshots": [STOP],
    }  # fmt: skip
    training |= {"gradient_checkpointing": True} if job == "shared_out" else {"pack": job == "packed"}
    if job != "memory":
        training["max_tokens"] = 48
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    values = {
        "output": str(folder / job),
        "data": {"genomes": [str(folder.parent / "toy.fa")], "hold_out": {"contigs": ["held"]}},
        "tokenizer": {"kind": "kmer", "k": 3},
        "model": {"preset": "tiny", "settings": {**size, "hidden_dropout": 0.0}},
        "training": training,
    }
    return build(PretrainConfig, values | ({"memory": memory} if job == "memory" else {}))


def main(folder: Path, processes: int) -> None:
    """Do all jobs; one that fails writes ``error-JOB-RANK.txt``."""
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    pretraining.LongstrandTrainer = Stopping  # type: ignore[misc]
    make = pretraining.make_model
    pretraining.make_model = lambda *args: make(*args).double()
    for job in JOBS:
        shared = processes > 1 and job == "shared_out"
        try:
            with as_if_on_gpus(shared):
                work(settings(folder, job, "fsdp" if shared else "ddp"), folder / job)
        except Exception:
            (folder / f"error-{job}-{rank()}.txt").write_text(traceback.format_exc())


def work(config: PretrainConfig, run: Path) -> None:
    stopped = pretraining.pretrain(config)
    assert stopped.stopped_by == "SIGUSR1" and stopped.model is None
    if rank() == 0 and config.training.parallel == "fsdp":
        convert(run)
    again = pretraining.pretrain(config)
    assert again.resumed_from == STOP and again.model is not None


def convert(run: Path) -> None:
    """Keep the sharded checkpoint, as a plain folder, and that as a sharded one and back."""
    plain = write_plain(run / f"checkpoint-{STOP}", run.parent / f"{run.name}-plain")
    sharded = write_sharded(plain, run.parent / f"{run.name}-sharded")
    write_plain(sharded, run.parent / f"{run.name}-back")
    shutil.copytree(run / f"checkpoint-{STOP}", run.parent / f"{run.name}-state")


def alone(folder: Path) -> None:
    main(folder, 1)


def pair(folder: Path) -> None:
    config = LaunchConfig(
        1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0, start_method="forkserver"
    )
    elastic_launch(config, main)(folder, 2)
