"""The ladder of baselines: every rung that a language model has to climb past, in one table in plain sight.

A rung has ``fit(train, valid)``; what it gives has ``predict(sequences, pairs)``. Adding one is a line in `LADDER`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from longstrand.baselines.boosting import KmerBoosting
from longstrand.baselines.cnn import CnnBaseline, Training
from longstrand.baselines.context import ContextRegression
from longstrand.baselines.kmer import KmerRegression
from longstrand.baselines.majority import Majority
from longstrand.baselines.networks import SEQUENCE_NETWORKS, TOKEN_NETWORKS
from longstrand.baselines.onehot import OneHotRegression
from longstrand.data.labelled import LabelledTable
from longstrand.errors import one_of

SEQUENCE = frozenset({"single_label", "multi_label", "regression"})
TOKEN = frozenset({"token"})
MAX_BOOSTED_OUTPUTS = 64
"""Boosting grows its own trees for each output; beyond this it would take longer than everything else together."""


class Fitted(Protocol):
    """A trained baseline."""

    def predict(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> Any:
        """Give probabilities or numbers: (n, num_outputs), or for token problems n arrays (num_bases, C)."""


@dataclass(frozen=True)
class Setting:
    """What all rungs share: ``seed``, ``both_strands``, ``kmer`` (k of the k-mer regression), ``cnn`` (training)."""

    seed: int = 0
    both_strands: bool = False
    kmer: int = 6
    cnn: Training = field(default_factory=Training)


@dataclass(frozen=True)
class Rung:
    """One baseline.

    Attributes:
        title: name for the reader.
        problems: kinds of problem that it is for.
        fit: trains it.
        seeded: whether another seed gives another result (else one seed is enough).
    """

    title: str
    problems: frozenset[str]
    fit: Callable[[LabelledTable, LabelledTable | None, Setting], Fitted]
    seeded: bool = False


def _majority(train: LabelledTable, valid: LabelledTable | None, setting: Setting) -> Fitted:
    return _MajorityModel(Majority.fit(train), train.task.problem == "token")


def _kmer(train: LabelledTable, valid: LabelledTable | None, setting: Setting) -> Fitted:
    return KmerRegression(setting.kmer, both_strands=setting.both_strands, seed=setting.seed).fit(train, valid)


def _boosting(train: LabelledTable, valid: LabelledTable | None, setting: Setting) -> Fitted:
    return KmerBoosting(both_strands=setting.both_strands, seed=setting.seed).fit(train, valid)


def _one_hot(train: LabelledTable, valid: LabelledTable | None, setting: Setting) -> Fitted:
    return OneHotRegression(seed=setting.seed).fit(train, valid)


def _context(train: LabelledTable, valid: LabelledTable | None, setting: Setting) -> Fitted:
    return ContextRegression(seed=setting.seed).fit(train, valid)


@dataclass(frozen=True)
class _Cnn:
    network: str

    def __call__(self, train: LabelledTable, valid: LabelledTable | None, setting: Setting) -> Fitted:
        settings = replace(setting.cnn, seed=setting.seed, both_strands=setting.both_strands)
        return CnnBaseline(self.network, settings).fit(train, valid)


@dataclass(frozen=True)
class _MajorityModel:
    majority: Majority
    per_base: bool

    def predict(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> Any:
        """Repeat the majority for each sequence, or each base."""
        if self.per_base:
            return [self.majority.predict(len(text)) for text in sequences]
        return self.majority.predict(len(sequences))


def _problems(network: str) -> frozenset[str]:
    return (SEQUENCE if network in SEQUENCE_NETWORKS else frozenset()) | (
        TOKEN if network in TOKEN_NETWORKS else frozenset()
    )


LADDER: dict[str, Rung] = {
    "majority": Rung("majority", SEQUENCE | TOKEN, _majority),
    "kmer": Rung("k-mer regression", SEQUENCE, _kmer),
    "boosting": Rung("boosting on k-mers", SEQUENCE, _boosting),
    "onehot": Rung("one-hot regression", SEQUENCE, _one_hot),
    "context": Rung("k-mer context regression", TOKEN, _context),
    "cnn-deepsea": Rung("CNN, DeepSEA style", _problems("deepsea"), _Cnn("deepsea"), seeded=True),
    "cnn-deepstarr": Rung("CNN, DeepSTARR style", _problems("deepstarr"), _Cnn("deepstarr"), seeded=True),
    "cnn-aparent": Rung("CNN, APARENT style", _problems("aparent"), _Cnn("aparent"), seeded=True),
    "cnn-spliceai": Rung("CNN, SpliceAI style", _problems("spliceai"), _Cnn("spliceai"), seeded=True),
}


def rungs(problem: str, num_outputs: int = 1) -> list[str]:
    """List the baselines that are for a kind of problem, simplest first."""
    names = [name for name, rung in LADDER.items() if problem in rung.problems]
    if num_outputs > MAX_BOOSTED_OUTPUTS:
        names = [name for name in names if name != "boosting"]
    return names


def fit_baseline(
    name: str, train: LabelledTable, valid: LabelledTable | None = None, setting: Setting | None = None
) -> Fitted:
    """Train one baseline by name.

    Raises:
        UsageError: there is no such baseline, or not for this kind of problem.
    """
    one_of(name, LADDER, "baseline")
    one_of(name, rungs(train.task.problem, train.task.num_outputs), f"baseline for {train.task.problem} problems")
    return LADDER[name].fit(train, valid, setting or Setting())


def as_values(said: Any) -> np.ndarray:
    """Join the per-base arrays of token problems: float32 (all bases, C); others pass through."""
    return np.concatenate(said) if isinstance(said, list) else np.asarray(said)
