"""Scores of a model on labelled rows, by the one inference path, and the numbers computed from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from longstrand.data.bins import moments
from longstrand.data.labelled import LabelledTable
from longstrand.data.records import Record
from longstrand.evaluation.metrics import LOWER_IS_BETTER, Scores, evaluate, metric_names
from longstrand.inference.predict import PredictOptions, predict, probabilities

if TYPE_CHECKING:
    from longstrand.tokenization.base import Tokenizer

Scale = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Scored:
    """Logits of a table.

    Attributes:
        table: the rows.
        logits: float32 (n, num_outputs), or for token problems a list of n arrays (num_bases, num_outputs), for bins of
            n arrays (num_bins, num_outputs) of predicted numbers. NaN where
            the model saw nothing (no token, or bases past the cut).
        num_tokens: tokens of each row that the model saw.
        truncated: whether each row was cut.
    """

    table: LabelledTable
    logits: np.ndarray | list[np.ndarray]
    num_tokens: list[int]
    truncated: list[bool]

    def scores(self) -> Scores:
        """Turn logits into probabilities (or numbers), with the targets, for `evaluate`."""
        task = self.table.task
        if task.bin_bases is not None:
            bins = [len(values) for values in self.logits]
            return Scores(
                task,
                np.concatenate(list(self.table.targets)),
                np.concatenate(self.logits),
                np.repeat(np.arange(len(bins)), bins),
            )
        if isinstance(self.logits, list):
            assert isinstance(self.table.targets, list)
            values = probabilities(np.concatenate(self.logits), task.problem)
            _, sequence = np.unique(self.table.raw.rows, return_inverse=True)
            unit = np.repeat(sequence, [len(labels) for labels in self.table.targets])
            return Scores(task, np.concatenate(self.table.targets).astype(np.int64), values, unit)
        assert not isinstance(self.table.targets, list)
        values = self.logits if task.problem == "regression" else probabilities(self.logits, task.problem)
        return Scores(task, self.table.targets, values)

    def loss(self) -> float:
        """Mean loss over labelled targets in natural units of the problem (no class weights); NaN without any."""
        task = self.table.task
        if task.problem in ("single_label", "token"):
            scores = self.scores()
            known = (scores.targets >= 0) & ~np.isnan(scores.values).any(axis=1)
            chosen = scores.values[known, scores.targets[known]]
            return float(-np.log(np.clip(chosen, 1e-12, 1)).mean()) if known.any() else float("nan")
        pairs: Any = (self.table.targets, self.logits)
        if task.bin_bases is not None:
            pairs = tuple(np.concatenate(list(part)) for part in pairs)
        targets, logits = (np.asarray(part, np.float64) for part in pairs)
        known = ~np.isnan(targets) & ~np.isnan(logits)
        if not known.any():
            return float("nan")
        truth, said = targets[known], logits[known]
        if task.problem == "regression":
            return float(((truth - said) ** 2).mean())
        return float((np.logaddexp(0, said) - truth * said).mean())


def score(
    model: Any, table: LabelledTable, *, tokenizer: Tokenizer, settings: PredictOptions, scale: Scale | None = None
) -> Scored:
    """Apply a model to all rows of a table, in their order.

    Args:
        model: with a sequence or token head.
        table: n rows.
        tokenizer: the model's own.
        settings: of `longstrand.inference.predict.predict`; ``output`` is set here.
        scale: regression: (mean, deviation) of the targets that the model was trained on in standardised form.
    """
    is_token, is_bin = table.task.problem == "token", table.task.bin_bases is not None
    as_rates = is_bin and model.head_settings.problem == "counts"
    settings = replace(
        settings, output="probabilities" if as_rates else "logits", pooling="bases" if is_token else "mean"
    )
    rows = list(predict(model, records(table), tokenizer=tokenizer, settings=settings))
    values: Any = [row.values for row in rows]
    if is_bin and scale is not None:
        values = [(row * scale[1] + scale[0]).astype(np.float32) for row in values]
    elif not is_token and not is_bin:
        values = np.stack(values)
        if scale is not None:
            values = (values * scale[1] + scale[0]).astype(np.float32)
    return Scored(table, values, [row.num_tokens for row in rows], [row.truncated for row in rows])


def records(table: LabelledTable) -> Iterator[Record]:
    """Give the rows as `predict` reads them."""
    raw = table.raw
    for index, sequence in enumerate(raw.sequences):
        second = raw.pairs[index] if raw.pairs is not None else None
        name = raw.names[index] if raw.names is not None else str(raw.rows[index])
        yield Record(index, name, sequence, second=second, where=f"{raw.source}, row {raw.rows[index]}")


def validation_numbers(scored: Scored) -> dict[str, float]:
    """Give the loss and all metrics of the validation rows, for choosing the best checkpoint.

    A metric that is undefined (a constant prediction has no correlation) counts as the worst value.
    """
    found = evaluate(scored.scores(), num_resamples=0, curves=False)["metrics"]
    numbers = {"loss": scored.loss()}
    for name in metric_names(scored.table.task):
        value = float(found[name]["value"]) if name in found else float("nan")
        worst = 1e9 if name in LOWER_IS_BETTER else -1.0
        numbers[name] = value if value == value else worst
    return numbers


def fold_scale(model: Any, scale: Scale) -> None:
    """Put the scale of standardised targets into the output layer, so that the model predicts natural units."""
    mean, spread = (torch.as_tensor(values, dtype=torch.float32) for values in scale)
    output = model.classifier.output
    with torch.no_grad():
        output.bias.mul_(spread.to(output.bias)).add_(mean.to(output.bias))
        output.weight.mul_(spread.to(output.weight)[:, None])


def start_at_mean(model: Any, table: LabelledTable) -> None:
    """Set the output bias of a head of counts to the mean of each target; training then begins with what differs."""
    bias = (
        torch.as_tensor(np.nan_to_num(moments(table.targets).mean), dtype=torch.float64).clamp(min=1e-3).expm1().log()
    )
    with torch.no_grad():
        model.classifier.output.bias.copy_(bias)
