"""Is pre-training worth it on three yeast tasks? Both arms tuned equally, three seeds, beside 6-mer regression.

    python recipes/pilot_yeast.py --model runs/mixed/model --output runs/pilot --snapshots runs/mixed/snapshots

For each task and each arm (pre-trained, random init) the learning rate is chosen on the validation rows with seed 0;
then seeds 0, 1, 2 are measured on the test rows. 6-mer regression is fitted on the same rows. Every run resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

from longstrand.config import build
from longstrand.runtime import provenance, write_json
from longstrand.training.finetune import finetune
from longstrand.training.settings import FinetuneConfig

TASKS = {
    "upstream_300": "labelled/yeast/upstream_300",
    "EMP_H3": "labelled/gue_lite/EMP_H3",
    "EMP_H4": "labelled/gue_lite/EMP_H4",
}
LEARNING_RATES = (5e-4, 2e-3)
SEEDS = (0, 1, 2)
TRAINING = {
    "epochs": 6,
    "batch_size": 32,
    "patience": 0,
    "strand": "both",
    "metric": "mcc",
    "threads": 1,
    "tensorboard": False,
}
ARMS = ("pretrained", "random")


def one_run(model: Path, task: str, output: Path, *, init: str, learning_rate: float, seed: int) -> dict[str, Any]:
    """Fine-tune once and give the report."""
    folder = Path(os.environ.get("LONGSTRAND_DATA", "../shared")) / "data" / TASKS[task]
    files = {"train": folder / "train.csv.gz", "valid": folder / "dev.csv.gz", "test": folder / "test.csv.gz"}
    values = {
        "output": output,
        "model": {"path": model, "init": init, "pooling": "mean"},
        "data": {**files, "max_train_rows": 3000},
        "training": {**TRAINING, "learning_rate": learning_rate, "seed": seed},
        "evaluation": {"strand": "both", "baselines": init == "random" and seed == 0},
    }
    return finetune(build(FinetuneConfig, values)).report


def arm(model: Path, task: str, output: Path, init: str) -> dict[str, Any]:
    """Choose the learning rate on validation with seed 0, then run the other seeds with it."""
    tuned = {}
    for rate in LEARNING_RATES:
        tuned[rate] = one_run(model, task, output / f"lr{rate:g}-seed0", init=init, learning_rate=rate, seed=0)
    best = max(tuned, key=lambda rate: validation(tuned[rate]))
    reports = [tuned[best]]
    for seed in SEEDS[1:]:
        reports.append(
            one_run(model, task, output / f"lr{best:g}-seed{seed}", init=init, learning_rate=best, seed=seed)
        )
    scores = [test_score(report) for report in reports]
    return {
        "learning_rate": best,
        "validation": {f"{rate:g}": validation(report) for rate, report in tuned.items()},
        "test_mcc": scores,
        "mean": statistics.mean(scores),
        "sd": statistics.stdev(scores),
        "baselines": tuned[LEARNING_RATES[0]].get("baselines"),
    }


def curve(options: argparse.Namespace, task: str, rate: float) -> dict[str, Any]:
    """Fine-tune every snapshot of a pre-training run with the settings of the final model."""
    points = {}
    for folder in sorted(options.snapshots.iterdir(), key=lambda path: int(path.name.split("-")[1])):
        cells = [options.output / "curve" / task / folder.name / f"seed{seed}" for seed in SEEDS]
        reports = [
            one_run(folder, task, cell, init="pretrained", learning_rate=rate, seed=seed)
            for seed, cell in zip(SEEDS, cells)
        ]
        scores = [test_score(report) for report in reports]
        points[folder.name] = {"test_mcc": scores, "mean": statistics.mean(scores)}
        print("curve", folder.name, scores, flush=True)
    return points


def validation(report: dict[str, Any]) -> float:
    """Give the best validation MCC of a run."""
    return float(report["valid"]["metrics"]["mcc"]["value"])


def test_score(report: dict[str, Any]) -> float:
    """Give the test MCC of a run."""
    return float(report["test"]["metrics"]["mcc"]["value"])


def main() -> None:
    """Run all cells that are not done yet and write ``pilot.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument(
        "--snapshots", type=Path, help="also fine-tune each snapshot on the last task: quality against tokens"
    )
    options = parser.parse_args()
    table: dict[str, Any] = {}
    for task in options.tasks:
        for init in options.arms:
            table.setdefault(task, {})[init] = arm(options.model, task, options.output / task / init, init)
            print(task, init, json.dumps(table[task][init], default=str)[:300], flush=True)
    if options.snapshots:
        task = options.tasks[-1]
        table["curve"] = curve(options, task, table[task]["pretrained"]["learning_rate"])
    write_json(options.output / f"pilot-{'-'.join(options.arms)}.json", {"results": table, "provenance": provenance()})


if __name__ == "__main__":
    main()
