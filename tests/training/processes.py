"""Train toys in this process, or in one of the two that ``torchrun`` started, and write down what happened."""

from __future__ import annotations

import json
import os
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from transformers import TrainerCallback

from longstrand.cli import main as command_line
from longstrand.config import build
from longstrand.report import plots
from longstrand.runtime import rank, world_size
from longstrand.training import finetune as finetuning
from longstrand.training import pretrain as pretraining
from longstrand.training.settings import FinetuneConfig, PretrainConfig
from longstrand.training.trainer import LongstrandTrainer

RECORD: dict[str, Any] = {}


class Watched(LongstrandTrainer):
    """Writes down the rows and the loss of each step, and the gradients of the first."""

    job = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: dict[str, list[Any]] = {"rows": [], "losses": []}
        RECORD[self.job] = self.seen
        self.add_callback(_FirstGradients(Watched.job))

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
        real = inputs["attention_mask"].bool() if "attention_mask" in inputs else torch.ones_like(inputs["input_ids"])
        rows = [ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], real)]
        loss = super().training_step(model, inputs, *rest)
        self.seen["rows"].append([self.state.global_step, rows])
        self.seen["losses"].append([self.state.global_step, float(loss)])
        return loss


class _FirstGradients(TrainerCallback):
    def __init__(self, job: str) -> None:
        self.job = job

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == 0 and rank() == 0:
            found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
            torch.save({name.removeprefix("module."): grad for name, grad in found.items()}, f"{self.job}.gradients")


def pretrain(job: str, folder: Path, double: bool) -> None:
    training = {
        "max_tokens": 32, "steps": 10, "batch_size": 8, "micro_batch_size": 2, "warmup_steps": 2, "log_every": 1,
        "eval_every": 5, "eval_windows": 4, "save_every": 10, "num_workers": 0, "device": "cpu", "threads": 1,
        "learning_rate": 1e-2, "max_grad_norm": 0.0, "references": False,
    }  # fmt: skip
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    values = {
        "output": str(folder / job),
        "data": {"genomes": [str(folder.parent / "toy.fa")], "hold_out": {"contigs": ["two"]}},
        "tokenizer": {"kind": "kmer", "k": 3},
        "model": {"preset": "tiny", "settings": {**sizes, "hidden_dropout": 0.0}},
        "training": training,
    }
    run(job, pretraining, double, lambda: pretraining.pretrain(build(PretrainConfig, values)))


def finetune(job: str, folder: Path, double: bool = True, **changes: Any) -> None:
    training = {
        "epochs": 3, "batch_size": 8, "micro_batch_size": 2, "learning_rate": 0.01, "device": "cpu", "threads": 1,
        "log_every": 1, "max_grad_norm": 0.0, "patience": 2, "strand": "both",
    }  # fmt: skip
    values = {
        "output": str(folder / job),
        "model": {"path": str(folder.parent / "tiny"), "dropout": 0.0},
        "data": {"train": str(folder.parent / "train.csv")},
        "evaluation": {"resamples": 10, "page": False, **({"kmer": 2} if job == "classes" else {"baselines": False})},
        "training": training | changes.pop("training", {}),
    }
    run(job, finetuning, double, lambda: finetuning.finetune(build(FinetuneConfig, values | changes)))


def run(job: str, module: Any, double: bool, work: Any) -> None:
    """Do one job in float64 or float32, watched."""
    make, Watched.job = module.make_model, job
    if double:
        module.make_model = lambda *args, **options: make(*args, **options).double()
    try:
        work()
    finally:
        module.make_model = make


def verbs(folder: Path) -> None:
    """Run the commands that share out pieces of work on what was trained; each has an environment of its own."""
    Watched.job = "verbs"
    launched, table = dict(os.environ), str(folder.parent / "train.csv")
    common = ["--device", "cpu"]
    commands = {
        "predict": ["predict", "classes", table, "--output", "predictions.csv", *common],
        "embed": ["embed", "pretrain64", table, "--output", "vectors.csv", *common],
        "probe": ["probe", "--model", "pretrain64", "--train", table, "--output", "probed", "--trials", "2", *common],
        "benchmark": ["benchmark", "run", "--data", str(folder.parent / "data"), "--model", "pretrain64",
                      "--output", "compared", *common, "--method", "full", "--method", "probe", "random_init=false",
                      "--baselines", "majority,kmer", "protocol.epochs=2", "protocol.resamples=20", "protocol.kmer=2",
                      "protocol.probe.trials=2", "threads=1"],
        "variants": ["variants", "score", "pretrain64", str(folder.parent / "people.vcf"), "--genome",
                     str(folder.parent / "toy.fa"), "--output", "scored.vcf", "--window", "30", "--part-rows", "3",
                     "--sample", "S", *common],
    }  # fmt: skip
    for number, (name, words) in enumerate(commands.items()):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)  # the meetings of one command are not those of another
        try:
            command_line.main(words)
        except SystemExit as end:
            RECORD[name] = end.code
        os.environ |= launched


def alone(folder: Path) -> None:
    """Do all jobs in this process."""
    main(folder)


def pair(folder: Path) -> None:
    """Do all jobs in two processes, as ``torchrun --nproc-per-node 2`` does, but forked from a clean server."""
    config = LaunchConfig(
        1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0, start_method="forkserver"
    )
    elastic_launch(config, main)(folder)


def main(folder: Path) -> None:
    """Do all jobs in a folder of their own, and write ``record-RANK.json``, or ``error-RANK.txt``."""
    try:
        do_all(folder)
    except BaseException:
        (folder / f"error-{rank()}.txt").write_text(traceback.format_exc())
        raise


def do_all(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    plots.to_svg = lambda *_, **__: "<svg></svg>"
    pretraining.LongstrandTrainer = Watched  # type: ignore[misc]
    finetuning.FinetuneTrainer.__bases__ = (Watched,)
    os.chdir(folder)
    pretrain("pretrain64", folder, double=True)
    pretrain("pretrain32", folder, double=False)
    finetune("classes", folder)
    finetune("stopped", folder, training={"epochs": 12, "learning_rate": 0.2, "patience": 1})
    finetune("lora", folder, method={"peft": "lora", "lora_dropout": 0.0}, training={"epochs": 2})
    plateau = {"stages": [1, 2], "plateau": {"patience": 1, "min_gain": 1.0}, "mixed": 0.5}
    memory = {"num_tokens": 2, "segment_length": 12, "curriculum": plateau}
    finetune("memory", folder, memory=memory, training={"epochs": 3, "patience": 0})
    finetune("search", folder, training={"epochs": 2, "learning_rate": None})
    verbs(folder)
    (folder / f"record-{rank()}.json").write_text(
        json.dumps(RECORD | {"processes": world_size(), "seconds": time.process_time()})
    )
