"""Baselines measured exactly as a fine-tuned model is: the same rows, the same metrics, the same intervals."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from longstrand.baselines.kmer import KmerRegression
from longstrand.baselines.majority import Majority
from longstrand.data.labelled import LabelledTable
from longstrand.evaluation.metrics import Scores, evaluate

logger = logging.getLogger(__name__)


def run_baselines(
    train: LabelledTable,
    measured: Mapping[str, LabelledTable],
    *,
    k: int = 6,
    both_strands: bool = False,
    num_resamples: int = 1000,
) -> dict[str, dict[str, Any]]:
    """Fit k-mer regression and the majority on the training rows and evaluate them.

    Args:
        train: training rows.
        measured: the splits to evaluate, by name; ``valid`` also chooses the penalty of the k-mer regression.
        k: bases of a k-mer.
        both_strands: count k-mers of both strands.
        num_resamples: as in `longstrand.evaluation.metrics.evaluate`.

    Returns:
        ``{"kmer": {split: evaluation}, "majority": {split: evaluation}}``; token problems have no ``kmer``.
    """
    train, measured = train.upper_case(), {name: table.upper_case() for name, table in measured.items()}
    results: dict[str, dict[str, Any]] = {}
    if train.task.problem != "token":
        model = KmerRegression(k, both_strands=both_strands).fit(train, measured.get("valid"))
        results["kmer"] = {
            name: evaluate(
                Scores(train.task, np.asarray(table.targets), model.predict(table.sequences, table.pairs)),
                num_resamples=num_resamples,
            )
            for name, table in measured.items()
        } | {"settings": {"k": k, "both_strands": both_strands, "penalty": model.penalty}}
    majority = Majority.fit(train)
    results["majority"] = {
        name: evaluate(_constant_scores(table, majority), num_resamples=num_resamples, curves=False)
        for name, table in measured.items()
    }
    return results


def _constant_scores(table: LabelledTable, majority: Majority) -> Scores:
    if isinstance(table.targets, list):
        targets = np.concatenate(table.targets).astype(np.int64)
        _, sequence = np.unique(table.raw.rows, return_inverse=True)
        unit = np.repeat(sequence, [len(labels) for labels in table.targets])
        return Scores(table.task, targets, majority.predict(len(targets)), unit)
    return Scores(table.task, table.targets, majority.predict(len(table)))
