"""Settings of a fine-tuning run that nobody gave: strand and epochs by the table, the rate by a short search.

Each rate is tried on a third of the epochs (or of the rows, where epochs are few), so that the whole search costs what
the chosen run costs. Only validation rows choose. Every trial is a run folder of its own below ``search``, so that an
interrupted search goes on where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longstrand.data.labelled import label
from longstrand.data.labelled_tokens import is_bio
from longstrand.data.splits import choose_rows
from longstrand.data.targets import Task
from longstrand.errors import TrainingError
from longstrand.evaluation.metrics import LOWER_IS_BETTER
from longstrand.training.examples import LabelledSplits
from longstrand.training.settings import FinetuneConfig

FACTORS = (0.3, 1.0, 3.0)
FOLDER = "search"
FEW_LABELS = 1000


@dataclass(frozen=True)
class Chosen:
    """The complete settings, and what the search tried (None: everything was given).

    ``stopped_by`` names the signal that ended the search before its end.
    """

    config: FinetuneConfig
    search: dict[str, Any] | None = None
    stopped_by: str | None = None


def default_strand(task: Task) -> str:
    """Give ``both`` for labels of whole sequences, ``+`` for labels along them, which may run in one direction."""
    return "+" if task.problem == "token" or task.bin_bases is not None or is_bio(task.names) else "both"


def default_epochs(num_rows: int, batch_size: int) -> int:
    """Give the most epochs: 30 up to 1,000 rows, falling with the root of their number to 3, 300 steps at least."""
    enough = math.ceil(300 / max(1, num_rows // batch_size))
    return max(3, min(30, round(30 * math.sqrt(1000 / num_rows))), min(enough, 100))


def default_rates(num_parameters: int, method: str) -> tuple[float, ...]:
    """Give the rates to try: around 1e-3 up to 5 M weights, lower with their root; adapters and heads 3 times that."""
    base = 1e-3 * min(1.0, math.sqrt(5e6 / max(1, num_parameters))) * (1 if method == "full" else 3)
    return tuple(float(f"{base * factor:.1g}") for factor in FACTORS)


def complete(config: FinetuneConfig, splits: LabelledSplits) -> FinetuneConfig:
    """Fill in strand, epochs and patience; the rate may still be open."""
    training, evaluation = config.training, config.evaluation
    strand = training.strand or evaluation.strand or default_strand(splits.task)
    epochs = training.epochs or default_epochs(len(splits.train), training.batch_size)
    patience = max(3, epochs // 3) if training.patience is None else training.patience
    filled = training.model_copy(update={"strand": strand, "epochs": epochs, "patience": patience})
    measured = evaluation.model_copy(update={"strand": evaluation.strand or strand})
    return config.model_copy(update={"training": filled, "evaluation": measured})


def choose(
    config: FinetuneConfig,
    splits: LabelledSplits,
    *,
    num_parameters: int,
    train: Callable[[FinetuneConfig, LabelledSplits], Any],
    notice: Callable[[str], None],
) -> Chosen:
    """Complete the settings, trying rates on the validation rows if none is given.

    Args:
        config: the settings as given.
        splits: the rows; those of the test are not looked at.
        num_parameters: weights of the model.
        train: fine-tunes with complete settings; see `longstrand.training.finetune.finetune`.
        notice: receives sentences for the user.

    Raises:
        TrainingError: training diverged with every rate.
    """
    full = complete(config, splits)
    if full.training.learning_rate is not None:
        return Chosen(full)
    rates = default_rates(num_parameters, full.method.name)
    epochs, rows = max(1, full.training.epochs // 3), splits.train.raw
    share = min(1.0, full.training.epochs / 3 / epochs)
    if share < 1:
        rows = choose_rows(rows, max(2, round(share * len(rows))), seed=config.data.split_seed)
    fewer = LabelledSplits(label(rows, splits.task) if share < 1 else splits.train, splits.valid, None, splits.origin)
    notice(
        f"trying {len(rates)} learning rates ({', '.join(f'{rate:g}' for rate in rates)}) for {epochs} epochs each on "
        f"{len(rows):,} rows; --rate skips this"
    )
    if len(splits.train) < FEW_LABELS and config.model.init == "pretrained":
        notice(
            f"only {len(splits.train):,} training rows: 'longstrand probe' is quicker and often as good; try it first"
        )
    trials: list[dict[str, Any]] = []
    for rate in rates:
        trial = _trial(full, rate, epochs)
        try:
            result = train(trial, fewer)
        except TrainingError:
            trials.append({"learning_rate": rate, "epochs": epochs, "score": None})
            continue
        if result.stopped_by is not None:
            return Chosen(full, None, result.stopped_by)
        trials.append({"learning_rate": rate, "epochs": epochs, **_outcome(result.report)})
    able = [trial for trial in trials if trial["score"] is not None]
    if not able:
        raise TrainingError(f"{config.output}: training diverged with every rate of {rates}; give a lower --rate.")
    sign = -1 if able[0]["metric"] in LOWER_IS_BETTER else 1
    best = max(able, key=lambda trial: (not trial["collapsed"], sign * trial["score"], -trial["loss"]))
    training = full.training.model_copy(update={"learning_rate": best["learning_rate"]})
    chosen = {"learning_rate": best["learning_rate"], "epochs": training.epochs, "strand": training.strand}
    shown = ", ".join(f"{trial['learning_rate']:g}: {_number(trial['score'])}" for trial in trials)
    notice(f"chosen: learning rate {best['learning_rate']:g}, {training.epochs} epochs at most (validation: {shown})")
    search = {"trials": trials, "chosen": chosen, "metric": best["metric"], "rows": len(rows)}
    return Chosen(full.model_copy(update={"training": training}), search)


def _trial(full: FinetuneConfig, rate: float, epochs: int) -> FinetuneConfig:
    """Give the settings of a trial: nothing is measured but the validation rows."""
    output = Path(full.output) / FOLDER / f"rate-{rate:g}"
    training = full.training.model_copy(
        update={"learning_rate": rate, "epochs": epochs, "patience": 0, "tensorboard": False}
    )
    evaluation = full.evaluation.model_copy(update={"resamples": 0, "baselines": False, "page": False})
    return full.model_copy(update={"output": output, "training": training, "evaluation": evaluation})


def _outcome(report: dict[str, Any]) -> dict[str, Any]:
    """Score a trial by the mean of its three best evaluations: one alone is mostly luck on few validation rows."""
    metric = report["metric"]
    values = sorted((row[f"eval_{metric}"] for row in report["curve"]), reverse=metric not in LOWER_IS_BETTER)[:3]
    return {
        "metric": metric,
        "score": sum(values) / len(values),
        "loss": min(row["eval_loss"] for row in report["curve"]),
        "collapsed": report["collapsed"],
        "steps": report["steps"],
        "seconds": report["cost"]["seconds"],
    }


def _number(score: float | None) -> str:
    return "diverged" if score is None else f"{score:.3f}"
