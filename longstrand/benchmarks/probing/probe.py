"""Probing: how much a simple model reads off a frozen encoder, layer by layer, with the choice made before the test.

Every layer and pooling is scored by k-fold cross-validation over training and validation rows (identical sequences, on
either strand, in one fold) or, without folds, on the validation rows. Optuna's TPE then searches layer, pooling, kind
of probe and its settings by the same score. The one winner is fitted on the training rows and sees the test rows once.

With labels per base a sampled base is a row, there is no pooling, and the bases of a sequence (of its pieces, and of
identical sequences) are in one fold.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from longstrand.baselines.linear import Rows, fit_linear
from longstrand.benchmarks.probing.states import BASES, States, cache_states, probe_options, rows_of_bases
from longstrand.config import StrictModel
from longstrand.data.labelled import LabelledTable
from longstrand.data.labelled_files import Words
from longstrand.data.targets import Task
from longstrand.errors import UsageError
from longstrand.evaluation.bootstrap import confusion_metrics
from longstrand.evaluation.metrics import LOWER_IS_BETTER, PRIMARY, Scores, primary_value
from longstrand.genome.sequence import reverse_complement
from longstrand.runtime import Notice, generator

if TYPE_CHECKING:
    from longstrand.models.network import Network

logger = logging.getLogger(__name__)

CURVE_STRENGTH = 1.0
"""C of the logistic regression (1 / alpha of the ridge) on standardised vectors, the same all along the layer curve."""


class ProbeSettings(StrictModel):
    """What is probed, and how the choice is made."""

    layers: Words = Field(("all",), description="all, or numbers: 0 = embedding output, 1 = first layer, -1 = last")
    poolings: Words = Field((), description="cls, mean, max; default: all")
    folds: int = Field(5, ge=0, description="folds over training and validation rows; 0: score on validation rows")
    trials: int = Field(25, ge=0, description="trials of Optuna's TPE search; 0: the best point of the layer curve")
    probes: tuple[Literal["linear", "mlp"], ...] = Field(("linear", "mlp"), min_length=1, description="kinds of probe")
    max_rows: int = Field(4000, ge=10, description="most rows used for the choice; the winner is fitted on all")
    max_bases: int = Field(
        40_000, ge=100, description="labels per base: most bases of train (and of valid) that are used, chosen by seed"
    )
    states: Literal["float16", "float32"] = Field("float16", description="labels per base: how states are kept")
    seed: int = Field(0, ge=0, description="of folds, search and MLP")

    @model_validator(mode="after")
    def _check(self) -> ProbeSettings:
        if self.folds == 1:
            raise ValueError("one fold leaves nothing to fit on; use folds=0 (validation rows) or 2 and more")
        return self


@dataclass(frozen=True)
class Choice:
    """One probe: where it reads, and what it is.

    Attributes:
        layer: 0 = embedding output.
        pooling: cls, mean or max.
        kind: linear or mlp.
        strength: C, the inverse of the penalty.
        width: hidden units of an MLP, else 0.
    """

    layer: int
    pooling: str
    kind: str = "linear"
    strength: float = CURVE_STRENGTH
    width: int = 0


@dataclass(frozen=True)
class Tried:
    """A choice with its scores, one a fold."""

    choice: Choice
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the folds."""
        return float(np.mean(self.scores))

    @property
    def spread(self) -> float:
        """Standard deviation over the folds; 0 for one."""
        return float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else 0.0


@dataclass(frozen=True)
class ProbeResult:
    """What probing found.

    Attributes:
        metric: that the choice was made by (larger is better).
        curve: every layer and pooling with the linear probe.
        trials: of the search, in order.
        chosen: the winner.
        probe: fitted on the training rows.
    """

    metric: str
    curve: tuple[Tried, ...]
    trials: tuple[Tried, ...]
    chosen: Tried
    probe: Probe

    def predict(self, states: States, split: str) -> np.ndarray:
        """Apply the winner to a split: float32 (rows or bases, num_outputs), NaN where no base was seen."""
        choice, width = self.chosen.choice, self.probe.task.num_outputs
        return states.apply(split, choice.layer, choice.pooling, self.probe.predict, width)

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the fitted probe as plain values."""
        return {
            "metric": self.metric,
            "curve": [plain(tried) for tried in self.curve],
            "trials": [plain(tried) for tried in self.trials],
            "chosen": plain(self.chosen),
            "parameters": self.probe.num_parameters,
        }


def where_of(chosen: Mapping[str, Any]) -> str:
    """Say in words what was chosen."""
    read = "each base" if chosen["pooling"] == BASES else f"{chosen['pooling']} pooling"
    return f"layer {chosen['layer']}, {read}, {chosen['kind']} probe"


def plain(tried: Tried) -> dict[str, Any]:
    """Turn a scored choice into a dictionary."""
    return {**vars(tried.choice), "mean": tried.mean, "sd": tried.spread, "scores": list(tried.scores)}


class Probe:
    """A linear model or an MLP on standardised vectors."""

    def __init__(self, task: Task, choice: Choice, seed: int = 0) -> None:
        self.task, self.choice, self.seed = task, choice, seed
        self._model: Any = None

    def fit(self, vectors: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> Probe:
        """Fit on vectors (n, hidden) and targets as in `LabelledTable`; an MLP leaves rows with a missing one out.

        With ``weights`` (n,) the linear probe weighs its rows, and the MLP sees n rows drawn by weight.
        """
        if weights is not None and self.choice.kind == "mlp":
            random = generator(self.seed, 0, "rows of an MLP probe")
            drawn = np.sort(random.choice(len(vectors), len(vectors), p=weights / weights.sum()))
            vectors, targets = vectors[drawn], targets[drawn]
        self._mean, self._spread = vectors.mean(axis=0), vectors.std(axis=0)
        self._spread[self._spread < 1e-6] = 1.0
        features = self._standardise(vectors)
        if self.choice.kind == "linear":
            strength = self.choice.strength
            penalty = 1 / strength if self.task.problem == "regression" else strength
            rows = Rows(features, targets, None if weights is None else weights / weights.mean())
            self._model = fit_linear(self.task, rows, None, penalty=penalty)
        else:
            self._model = self._fit_mlp(features, targets)
        return self

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Give class or label probabilities or numbers: float32 (n, num_outputs)."""
        features = self._standardise(vectors)
        if self.choice.kind == "linear":
            return self._model.predict(features)
        if self.task.problem == "regression":
            predicted = self._model.predict(features).reshape(len(features), -1)
            return (predicted * self._scale[1] + self._scale[0]).astype(np.float32)
        predicted = self._model.predict_proba(features)
        if self.task.problem == "multi_label":
            return (predicted[:, -1:] if self.task.num_outputs == 1 else predicted).astype(np.float32)
        values = np.zeros((len(features), self.task.num_outputs), dtype=np.float32)
        values[:, self._model.classes_] = predicted
        return values

    @property
    def num_parameters(self) -> int:
        """Weights of the fitted probe."""
        if self.choice.kind == "mlp":
            return int(sum(part.size for part in [*self._model.coefs_, *self._model.intercepts_]))
        parts = [part for model in self._model.estimators for part in _arrays(model)]
        return int(sum(np.size(part) for part in parts))

    def _standardise(self, vectors: np.ndarray) -> np.ndarray:
        return (vectors - self._mean) / self._spread

    def _fit_mlp(self, features: np.ndarray, targets: np.ndarray) -> Any:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        settings = {"hidden_layer_sizes": (self.choice.width,), "alpha": 1 / self.choice.strength}
        settings |= {"max_iter": 200, "random_state": self.seed, "batch_size": min(128, len(features))}
        known = np.ones(len(targets), bool) if targets.ndim == 1 else ~np.isnan(targets).any(axis=1)
        features, targets = features[known], targets[known]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            if self.task.problem == "regression":
                spread = targets.std(axis=0)
                self._scale = targets.mean(axis=0), np.where(spread > 0, spread, 1.0)
                wanted = (targets - self._scale[0]) / self._scale[1]
                return MLPRegressor(**settings).fit(features, wanted[:, 0] if wanted.shape[1] == 1 else wanted)
            wanted = targets if targets.ndim == 1 else targets.astype(int)
            wanted = wanted[:, 0] if wanted.ndim == 2 and wanted.shape[1] == 1 else wanted
            return MLPClassifier(**settings).fit(features, wanted)


def _arrays(model: Any) -> list[np.ndarray]:
    return [getattr(model, name) for name in ("coef_", "intercept_") if hasattr(model, name)]


Fold = tuple[np.ndarray, np.ndarray]
"""Rows of training and validation together that are fitted on, and those that are scored."""


class Search:
    """Scores choices on the folds.

    Args:
        states: of ``train`` and ``valid``.
        tables: the same splits.
        settings: how to choose.
    """

    def __init__(self, states: States, tables: Mapping[str, LabelledTable], settings: ProbeSettings) -> None:
        self.states, self.settings, self.task = states, settings, tables["train"].task
        self.metric = PRIMARY[self.task.problem]
        self.targets = np.concatenate([targets_of(states, tables, name) for name in ("train", "valid")])
        parts = [states.samples[name].weights for name in ("train", "valid") if name in states.samples]
        self.weights = np.concatenate(parts) if parts else None
        self.folds = make_folds(states, tables, settings)

    def run(self) -> tuple[list[Tried], list[Tried], Tried]:
        """Score the linear probe on every layer and pooling, then search: ``(curve, trials, the best of all)``."""
        places = [(layer, pooling) for layer in self.states.layers for pooling in self.states.poolings]
        curve = [self.score(Choice(*place)) for place in places]
        best = max(curve, key=lambda tried: tried.mean)
        trials = run_trials(self, best.choice) if self.settings.trials else []
        return curve, trials, max([best, *trials], key=lambda tried: tried.mean)

    def score(self, choice: Choice) -> Tried:
        """Fit on the one part of every fold and measure on the other."""
        place = choice.layer, choice.pooling
        vectors = np.concatenate([self.states.read(name, *place) for name in ("train", "valid")])
        scores = []
        for fit, held_out in self.folds:
            weights = None if self.weights is None else self.weights[fit]
            fitted = Probe(self.task, choice, self.settings.seed)
            found = fitted.fit(vectors[fit], self.targets[fit], weights).predict(vectors[held_out])
            value = self.measure(found, held_out)
            value = -1.0 if value != value else value
            scores.append(-value if self.metric in LOWER_IS_BETTER else value)
        return Tried(choice, tuple(scores))

    def measure(self, values: np.ndarray, rows: np.ndarray) -> float:
        """Measure predictions of some rows; sampled bases with the classes weighted back to their share."""
        if self.weights is None:
            return primary_value(Scores(self.task, self.targets[rows], values), self.metric)
        width = self.task.num_outputs
        cells = self.targets[rows] * width + values.argmax(axis=1)
        counts = np.bincount(cells, self.weights[rows], minlength=width**2).reshape(1, width, width)
        return float(confusion_metrics(counts)[self.metric][0])


def targets_of(states: States, tables: Mapping[str, LabelledTable], name: str) -> np.ndarray:
    """Return the targets of a split: of its rows, or of its sampled bases."""
    if name not in states.samples:
        return np.asarray(tables[name].targets)
    chosen: np.ndarray = np.concatenate(list(tables[name].targets)).astype(np.int64)[states.samples[name].places]
    return chosen


def probe_model(
    model: Network,
    tables: Mapping[str, LabelledTable],
    folder: Path,
    settings: ProbeSettings,
    *,
    identity: Mapping[str, Any],
    notice: Notice,
    seed: int | None = None,
    max_tokens: int | None = None,
    **read: Any,
) -> tuple[States, ProbeResult]:
    """Compute the states of all rows (see `cache_states`), and choose a probe (see `choose_probe`).

    Args:
        model: the encoder.
        tables: ``train``, ``valid`` and ``test``.
        folder: where states are kept.
        settings: what is probed, and how the choice is made.
        identity: what identifies the model.
        notice: receives sentences.
        seed: of folds, search and MLP; None: that of ``settings``, which also samples bases.
        max_tokens: longest input; None: what the model reads.
        read: further options of `longstrand.inference.options.PredictOptions`: strand, precision, batch_tokens.
    """
    options = probe_options(model, settings.layers, settings.poolings, max_tokens=max_tokens, **read)
    sampling = {"max_bases": settings.max_bases, "seed": settings.seed, "dtype": settings.states}
    tokenizer = model.require_tokenizer()
    states = cache_states(
        model, tables, folder, tokenizer=tokenizer, options=options, identity=identity, sampling=sampling, notice=notice
    )
    chosen_by = settings if seed is None else settings.model_copy(update={"seed": seed})
    return states, choose_probe(states, tables, chosen_by)


def choose_probe(states: States, tables: Mapping[str, LabelledTable], settings: ProbeSettings) -> ProbeResult:
    """Score every layer and pooling, search, and fit the winner on the training rows, or their sampled bases.

    Args:
        states: of ``train`` and ``valid`` (and ``test``).
        tables: the same splits.
        settings: how to choose.

    Raises:
        UsageError: a search is asked for and Optuna is not installed; too few sequences for the folds.
    """
    search = Search(states, tables, settings)
    curve, trials, chosen = search.run()
    vectors = states.read("train", chosen.choice.layer, chosen.choice.pooling)
    weights = states.samples["train"].weights if states.samples else None
    fitted = Probe(search.task, chosen.choice, settings.seed)
    fitted.fit(vectors, targets_of(states, tables, "train"), weights)
    return ProbeResult(search.metric, tuple(curve), tuple(trials), chosen, fitted)


def run_trials(search: Search, start: Choice) -> list[Tried]:
    """Let TPE choose layer, pooling, kind, strength and width, beginning at the best point of the curve."""
    try:
        import optuna
    except ImportError:
        raise UsageError(
            "the search needs the package optuna; install it with: pip install 'longstrand[hpo]', or set trials=0."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings, tried = search.settings, []

    def objective(trial: Any) -> float:
        layer = trial.suggest_categorical("layer", list(search.states.layers))
        pooling = trial.suggest_categorical("pooling", list(search.states.poolings))
        kind = trial.suggest_categorical("kind", list(settings.probes))
        strength = trial.suggest_float("strength", 1e-4, 1e2, log=True)
        width = trial.suggest_categorical("width", [32, 64, 128]) if kind == "mlp" else 0
        tried.append(search.score(Choice(layer, pooling, kind, strength, width)))
        return tried[-1].mean

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=settings.seed))
    if start.kind in settings.probes:
        study.enqueue_trial({"layer": start.layer, "pooling": start.pooling, "kind": start.kind, "strength": 0.01})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.optimize(objective, n_trials=settings.trials)
    return tried


def make_folds(states: States, tables: Mapping[str, LabelledTable], settings: ProbeSettings) -> list[Fold]:
    """Divide the rows (or sampled bases) of training and validation, in this order, at most ``max_rows`` of them.

    Raises:
        UsageError: fewer different sequences than folds.
    """
    names, sizes = list[str](), list[int]()
    for split in ("train", "valid"):
        table = tables[split]
        mine = [group_of(table, row, split) for row in range(len(table))]
        if split in states.samples:
            mine = [mine[row] for row in rows_of_bases(table, states.samples[split].places)]
        names += mine
        sizes.append(len(mine))
    first, second = np.arange(sizes[0]), sizes[0] + np.arange(sizes[1])
    random = generator(settings.seed, 0, "probe folds")
    if settings.folds == 0:
        half = settings.max_rows
        return [(np.sort(random.permutation(first)[:half]), np.sort(random.permutation(second)[:half]))]
    groups: dict[str, list[int]] = {}
    for row in random.permutation(np.concatenate([first, second]))[: settings.max_rows].tolist():
        groups.setdefault(names[row], []).append(row)
    members = list(groups.values())
    if tables["train"].task.problem == "single_label":  # so that dealing them out in turn is stratified
        targets = np.concatenate([np.asarray(tables[name].targets) for name in ("train", "valid")])
        members.sort(key=lambda group: int(targets[group[0]]))
    return deal_groups([np.array(group) for group in members], settings.folds)


def group_of(table: LabelledTable, row: int, split: str) -> str:
    """Name the group that a row belongs to: that of identical sequences on either strand, or of pieces of one."""
    if table.raw.is_cut:
        return f"{split}, row {table.raw.rows[row]}"
    text = table.sequences[row]
    return min(text, reverse_complement(text))


def deal_groups(groups: Sequence[np.ndarray], num_folds: int) -> list[Fold]:
    """Deal groups of rows out to folds in turn.

    Raises:
        UsageError: fewer than two groups a fold.
    """
    if len(groups) < 2 * num_folds:
        raise UsageError(f"{len(groups)} different sequences are too few for {num_folds} folds; use fewer, or 0.")
    member = [np.sort(np.concatenate(groups[number::num_folds])) for number in range(num_folds)]
    return [
        (np.sort(np.concatenate([part for place, part in enumerate(member) if place != number])), member[number])
        for number in range(num_folds)
    ]
