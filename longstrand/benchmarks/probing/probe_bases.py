"""Probing of labels per base: the layer curve, the search and the winner, on sampled bases of whole sequences.

Everything is as in `longstrand.benchmarks.probing.probe`, with three differences: a base is a row, there is no
pooling, and the bases of a sequence (and of its pieces, and of identical sequences) are in one fold.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from longstrand.benchmarks.probing.base_states import BaseStates, bases_by_row
from longstrand.benchmarks.probing.probe import (
    Fold,
    Probe,
    ProbeResult,
    ProbeSettings,
    Search,
    deal_groups,
    sequence_group,
)  # fmt: skip
from longstrand.data.labelled import LabelledTable
from longstrand.evaluation.bootstrap import confusion_metrics
from longstrand.evaluation.metrics import PRIMARY
from longstrand.runtime import generator

BASES = "bases"
"""Stands where other probes have a pooling."""


class _BaseSearch(Search):
    """Scores choices on sampled bases; the states of a layer are read once while it is in use."""

    def __init__(self, cache: BaseStates, tables: Mapping[str, LabelledTable], settings: ProbeSettings) -> None:
        self.states, self.settings = cache, settings
        self.task = tables["train"].task
        self.metric = PRIMARY[self.task.problem]
        self.layers, self.poolings = cache.layers, (BASES,)
        self.targets = np.concatenate([_targets(tables[name], cache, name) for name in ("train", "valid")])
        self.weights = np.concatenate([cache.samples[name].weights for name in ("train", "valid")])
        self.folds = _folds(cache, tables, settings)
        self.held = None

    def measure(self, said: np.ndarray, rows: np.ndarray) -> float:
        """Measure with the classes weighted back to their share."""
        assert self.weights is not None
        width = self.task.num_outputs
        cells = self.targets[rows] * width + said.argmax(axis=1)
        counts = np.bincount(cells, self.weights[rows], minlength=width**2).reshape(1, width, width)
        return float(confusion_metrics(counts)[self.metric][0])

    def read(self, layer: int, pooling: str) -> np.ndarray:
        return np.concatenate([self.states.sampled(name, layer) for name in ("train", "valid")])


def _targets(table: LabelledTable, cache: BaseStates, name: str) -> np.ndarray:
    chosen: np.ndarray = np.concatenate(table.targets).astype(np.int64)[cache.samples[name].places]
    return chosen


def probe_bases(cache: BaseStates, tables: Mapping[str, LabelledTable], settings: ProbeSettings) -> ProbeResult:
    """Score every layer, search, and fit the winner on the sampled bases of the training rows.

    Args:
        cache: states of ``train`` and ``valid`` (and ``test``).
        tables: the same splits.
        settings: how to choose.

    Raises:
        UsageError: a search is asked for and Optuna is not installed; too few sequences for the folds.
    """
    search = _BaseSearch(cache, tables, settings)
    curve, trials, chosen = search.run()
    states = cache.sampled("train", chosen.choice.layer)
    fitted = Probe(search.task, chosen.choice, settings.seed)
    fitted.fit(states, _targets(tables["train"], cache, "train"), cache.samples["train"].weights)
    return ProbeResult(search.metric, tuple(curve), tuple(trials), chosen, fitted)


def predict_bases(found: ProbeResult, cache: BaseStates, split: str, num_outputs: int) -> np.ndarray:
    """Give class probabilities of all bases of a split: float32 (bases, num_outputs), NaN where nothing was seen."""
    return cache.said(split, found.chosen.choice.layer, found.probe.predict, num_outputs)


def _folds(cache: BaseStates, tables: Mapping[str, LabelledTable], settings: ProbeSettings) -> list[Fold]:
    """Divide sequences of training and validation among the folds; then the bases follow, at most ``max_rows``."""
    random = generator(settings.seed, 0, "probe folds of bases")
    split, group = [], []
    for name in ("train", "valid"):
        table = tables[name]
        names = [f"{name}, row {row}" if table.raw.is_cut else sequence_group(table, at)
                 for at, row in enumerate(table.raw.rows)]  # fmt: skip
        group += [names[row] for row in bases_by_row(table, cache.samples[name].places)]
        split += [name] * len(cache.samples[name])
    where = np.array(split)
    if settings.folds == 0:
        sides = [random.permutation(np.flatnonzero(where == name))[: settings.max_rows] for name in ("train", "valid")]
        return [Fold(*map(np.sort, sides))]
    chosen = np.sort(random.permutation(len(where))[: settings.max_rows])
    members: dict[str, list[int]] = {}
    for place in chosen.tolist():
        members.setdefault(group[place], []).append(place)
    names_in_turn = [list(members)[place] for place in random.permutation(len(members))]
    return deal_groups([np.array(members[name]) for name in names_in_turn], settings.folds)
