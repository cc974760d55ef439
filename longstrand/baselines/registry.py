"""The baselines that a language model has to be compared with, in one table in plain sight.

A baseline has ``fit(train, valid, settings)``; what it gives has ``predict(sequences, pairs)``. Adding one is a
line in `BASELINES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from longstrand.baselines.bins import BinKmerRegression, fit_means
from longstrand.baselines.cnn import CnnBaseline, Training
from longstrand.baselines.kmer import ContextRegression, KmerBoosting, KmerRegression
from longstrand.baselines.majority import Majority
from longstrand.baselines.networks import BIN_NETWORKS, SEQUENCE_NETWORKS, TOKEN_NETWORKS
from longstrand.baselines.onehot import OneHotRegression
from longstrand.data.labelled import LabelledTable
from longstrand.data.targets import Task
from longstrand.errors import one_of

SEQUENCE = frozenset({"single_label", "multi_label", "regression"})
TOKEN = frozenset({"token"})
BINS = frozenset({"bins"})
MAX_BOOSTED_OUTPUTS = 64
"""Boosting grows its own trees for each output; beyond this it would take longer than everything else together."""


class FittedBaseline(Protocol):
    """A trained baseline."""

    def predict(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> Any:
        """Give probabilities or numbers: (n, num_outputs); token: n arrays (num_bases, C); bins: n arrays (bins, C)."""


@dataclass(frozen=True)
class BaselineSettings:
    """What all baselines share.

    ``seed``, ``both_strands``, ``kmer`` (k of the k-mer regression), ``cnn`` (training), and ``bin_loss``: numbers per
    bin are counts (Poisson loss) or any (squared error).
    """

    seed: int = 0
    both_strands: bool = False
    kmer: int = 6
    cnn: Training = field(default_factory=Training)
    bin_loss: str = "squared"


@dataclass(frozen=True)
class Baseline:
    """One baseline.

    Attributes:
        title: name for the reader.
        problems: kinds of problem that it is for, as `kind_of` names them.
        fit: trains it.
        seeded: whether another seed gives another result (else one seed is enough).
    """

    title: str
    problems: frozenset[str]
    fit: Callable[[LabelledTable, LabelledTable | None, BaselineSettings], FittedBaseline]
    seeded: bool = False


def _majority(train: LabelledTable, valid: LabelledTable | None, settings: BaselineSettings) -> FittedBaseline:
    if train.task.bin_bases is not None:
        return fit_means(train)
    return Majority.fit(train)


def _cnn(title: str, network: str) -> Baseline:
    problems = [
        kinds
        for kinds, networks in ((SEQUENCE, SEQUENCE_NETWORKS), (TOKEN, TOKEN_NETWORKS), (BINS, BIN_NETWORKS))
        if network in networks
    ]

    def fit(train: LabelledTable, valid: LabelledTable | None, settings: BaselineSettings) -> FittedBaseline:
        counts = train.task.bin_bases is not None and settings.bin_loss == "counts"
        training = replace(settings.cnn, seed=settings.seed, both_strands=settings.both_strands, counts=counts)
        return CnnBaseline(network, training).fit(train, valid)

    return Baseline(title, frozenset().union(*problems), fit, seeded=True)


def kind_of(task: Task) -> str:
    """Name the kind of problem as `BASELINES` does: ``bins`` for numbers per bin, else the task's problem."""
    return task.problem if task.bin_bases is None else "bins"


BASELINES: dict[str, Baseline] = {
    "majority": Baseline("majority", SEQUENCE | TOKEN | BINS, _majority),
    "place": Baseline("mean by place in the window", BINS,
                      lambda train, valid, s: fit_means(train, by_place=True, both_strands=s.both_strands)),
    "kmer": Baseline("k-mer regression", SEQUENCE, lambda train, valid, s: KmerRegression(
        s.kmer, both_strands=s.both_strands).fit(train, valid)),
    "boosting": Baseline("boosting on k-mers", SEQUENCE, lambda train, valid, s: KmerBoosting(
        both_strands=s.both_strands, seed=s.seed).fit(train, valid)),
    "onehot": Baseline("one-hot regression", SEQUENCE,
                       lambda train, valid, s: OneHotRegression().fit(train, valid)),
    "context": Baseline("k-mer context regression", TOKEN,
                        lambda train, valid, s: ContextRegression(seed=s.seed).fit(train, valid)),
    "kmer-bins": Baseline("k-mer regression of bins", BINS, lambda train, valid, s: BinKmerRegression(
        both_strands=s.both_strands, seed=s.seed).fit(train, valid)),
    "cnn-deepsea": _cnn("CNN, DeepSEA style", "deepsea"),
    "cnn-deepstarr": _cnn("CNN, DeepSTARR style", "deepstarr"),
    "cnn-aparent": _cnn("CNN, APARENT style", "aparent"),
    "cnn-spliceai": _cnn("CNN, SpliceAI style", "spliceai"),
    "cnn-basenji": _cnn("CNN, Basenji style", "basenji"),
}  # fmt: skip


def baselines_for(problem: str, num_outputs: int = 1) -> list[str]:
    """List the baselines that are for a kind of problem, simplest first."""
    names = [name for name, baseline in BASELINES.items() if problem in baseline.problems]
    if num_outputs > MAX_BOOSTED_OUTPUTS:
        names = [name for name in names if name != "boosting"]
    return names


def fit_baseline(
    name: str, train: LabelledTable, valid: LabelledTable | None = None, settings: BaselineSettings | None = None
) -> FittedBaseline:
    """Train one baseline by name.

    Raises:
        UsageError: there is no such baseline, or not for this kind of problem.
    """
    one_of(name, BASELINES, "baseline")
    kind = kind_of(train.task)
    one_of(name, baselines_for(kind, train.task.num_outputs), f"baseline for {kind} problems")
    return BASELINES[name].fit(train, valid, settings or BaselineSettings())
