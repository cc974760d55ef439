"""States per base of labelled tables: all layers from one forward pass, kept on disk and read memory-mapped.

A base has the mean of the states of the tokens that cover it (with both strands: of the two strands). Neighbouring
bases of a token have the same states, so each distinct run is kept once, with the number of the run of every base. Of
the training rows only sampled bases are kept. A cache belongs to one model, one set of tables, labels and settings, all
written beside it; an interrupted computation goes on at the row where it stopped.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.data.labelled import LabelledTable
from longstrand.errors import InputError
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import predict
from longstrand.runtime import fingerprint_bytes, generator, read_json, write_json
from longstrand.training.measure import records

if TYPE_CHECKING:
    from longstrand.tokenization.base import Tokenizer

UNSEEN = -1
"""Run of a base that the model did not see, or that was not sampled."""

FEWEST_BATCH_TOKENS = 512
_BLOCK = 16
_CHUNK = 65_536


@dataclass(frozen=True)
class Sample:
    """Labelled bases of a table, chosen for fitting or scoring.

    Attributes:
        places: int64 (m,) positions among all bases of the table, rows one after the other, ascending.
        weights: float64 (m,) labelled bases that each one stands for.
    """

    places: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class BaseStates:
    """Cached states of the bases of some splits.

    Attributes:
        folder: with ``SPLIT.states`` (runs, layers, hidden) and ``SPLIT.runs`` (bases) as raw arrays.
        layers: 0 = embedding output, 1 = first layer, ...
        hidden: numbers a state.
        dtype: of the states on disk.
        samples: {"train", "valid"}: bases for fitting and scoring, those that the model saw.
        seconds: the forward pass took, 0 if the cache was complete.
        num_tokens: {split: tokens that the model saw}.
    """

    folder: Path
    layers: tuple[int, ...]
    hidden: int
    dtype: str
    samples: Mapping[str, Sample] = field(default_factory=dict)
    seconds: float = 0.0
    num_tokens: Mapping[str, int] = field(default_factory=dict)

    def sampled(self, split: str, layer: int) -> np.ndarray:
        """Read the states of the sampled bases of a split: float32 (m, hidden)."""
        runs = self._runs(split)[self.samples[split].places]
        return np.asarray(self._states(split)[runs, self.layers.index(layer)], dtype=np.float32)

    def said(self, split: str, layer: int, answer: Callable[[np.ndarray], np.ndarray], num_outputs: int) -> np.ndarray:
        """Apply a probe to every base of a split: float32 (bases, num_outputs), NaN where the model saw nothing.

        Args:
            split: all of whose bases are cached.
            layer: to read.
            answer: states (n, hidden) to values (n, num_outputs); it gets each run once.
            num_outputs: width of the values.
        """
        states, runs = self._states(split), self._runs(split)
        values = np.full((len(states) + 1, num_outputs), np.nan, dtype=np.float32)  # the last one is of UNSEEN
        for start in range(0, len(states), _CHUNK):
            part = np.asarray(states[start : start + _CHUNK, self.layers.index(layer)], dtype=np.float32)
            values[start : start + len(part)] = answer(part)
        found: np.ndarray = values[runs]
        return found

    def _states(self, split: str) -> np.ndarray:
        return _mapped(self.folder / f"{split}.states", self.dtype, (len(self.layers), self.hidden))

    def _runs(self, split: str) -> np.ndarray:
        return _mapped(self.folder / f"{split}.runs", "int32", ())


def sample_bases(table: LabelledTable, max_bases: int, seed: int, purpose: str) -> Sample:
    """Choose at most ``max_bases`` labelled bases: as many of each class as there are, up to an equal share.

    What a rare class leaves over goes to the others; weights say how many bases each one stands for, so that fits and
    scores see the classes as they are.
    """
    assert isinstance(table.targets, list)
    targets = np.concatenate(table.targets)
    kinds, counts = np.unique(targets[targets >= 0], return_counts=True)
    room, shares = max_bases, {}
    for left, place in zip(range(len(kinds), 0, -1), np.argsort(counts, kind="stable")):
        shares[int(kinds[place])] = min(int(counts[place]), room // left)
        room -= shares[int(kinds[place])]
    places, weights = [], []
    for kind, count in zip(kinds, counts):
        every = np.flatnonzero(targets == kind)
        size = shares[int(kind)]
        chosen = every if size == count else generator(seed, int(kind), purpose).permutation(every)[:size]
        places.append(chosen)
        weights.append(np.full(len(chosen), count / max(1, len(chosen))))
    joined = np.concatenate([np.zeros(0, np.int64), *places])
    order = np.argsort(joined, kind="stable")
    return Sample(joined[order], np.concatenate([np.zeros(0), *weights])[order])


def cache_base_states(
    model: Any,
    tables: Mapping[str, LabelledTable],
    folder: Path,
    *,
    tokenizer: Tokenizer,
    settings: PredictOptions,
    about: Mapping[str, Any],
    sampling: Mapping[str, Any],
    notice: Callable[[str], None] = lambda sentence: None,
) -> BaseStates:
    """Compute the states of every base in every layer by one pass, or take up what is there.

    Args:
        model: ours, with or without a head.
        tables: ``train``, ``valid`` and perhaps ``test``, with labels per base.
        folder: of the cache.
        tokenizer: the model's own.
        settings: of `predict`; empty ``layers`` mean all.
        about: what identifies the model (fingerprints); tables and settings are added.
        sampling: ``max_bases`` (training bases, and validation bases, that are used at most), ``seed`` and ``dtype``
            (float16 or float32).
        notice: receives sentences: what is sampled, how much disk it takes, a stale cache.

    Raises:
        InputError: a state is too large for float16, or the disk is full.
    """
    layers = settings.layers or tuple(range(model.config.num_hidden_layers + 1))
    batch = max(FEWEST_BATCH_TOKENS, settings.batch_tokens // len(layers))  # a buffer holds the states of all layers
    settings = settings.changed(output="embeddings", pooling="bases", poolings=(), layers=layers, truncate=True,
                       batch_tokens=min(settings.batch_tokens, batch))  # fmt: skip
    fixed = {name: getattr(settings, name) for name in ("strand", "precision", "max_tokens")}
    facts = {**about, **fixed, **sampling, "layers": list(layers)}
    facts["tables"] = {name: _fingerprint(table) for name, table in tables.items()}
    facts = json.loads(json.dumps(facts))
    described = folder / "about.json"
    if described.exists() and read_json(described) != facts:
        notice(f"{folder}: states of another model, other rows or another sample; they are computed anew")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(described, facts)
    samples = {
        name: sample_bases(tables[name], sampling["max_bases"], sampling["seed"], f"probe bases of {name}")
        for name in ("train", "valid")
    }
    _announce(tables, samples, notice)
    start, worked, num_tokens = time.perf_counter(), False, {}
    for name, table in tables.items():
        kept = samples["train"].places if name == "train" else None
        filler = _Filler(folder, name, sampling["dtype"], (len(layers), model.config.hidden_size), kept)
        worked |= filler.fill(model, table, tokenizer, settings)
        num_tokens[name] = filler.tokens
    seconds = time.perf_counter() - start if worked else 0.0
    width = (model.config.hidden_size, sampling["dtype"])
    found = BaseStates(folder, tuple(layers), *width, {}, seconds, num_tokens)
    seen = {name: _seen(sample, found._runs(name)) for name, sample in samples.items()}
    return replace(found, samples=seen)


def _announce(
    tables: Mapping[str, LabelledTable], samples: Mapping[str, Sample], notice: Callable[[str], None]
) -> None:
    parts = []
    for name, sample in samples.items():
        total = round(sample.weights.sum())
        parts.append(f"{len(sample):,} of {total:,} labelled bases of {name}")
    if any(len(sample) < round(sample.weights.sum()) for sample in samples.values()):
        notice(f"probing uses {' and '.join(parts)}, chosen by seed, rare classes first, weighted back to their share")


def _seen(sample: Sample, runs: np.ndarray) -> Sample:
    """Leave out bases that the model did not see (past the cut)."""
    kept = runs[sample.places] != UNSEEN
    return Sample(sample.places[kept], sample.weights[kept])


def _fingerprint(table: LabelledTable) -> str:
    """Identify sequences and labels: the sample depends on both."""
    labels = np.concatenate(table.targets) if isinstance(table.targets, list) else np.asarray(table.targets)
    return fingerprint_bytes("\n".join(table.sequences).encode() + np.ascontiguousarray(labels).tobytes())


def _mapped(path: Path, dtype: str, inner: Sequence[int]) -> np.ndarray:
    """Map a raw file as an array (n, *inner); an empty file cannot be mapped."""
    if path.stat().st_size == 0:
        return np.zeros((0, *inner), dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r").reshape(-1, *inner)


class _Filler:
    """Writes the states of one split, row by row, and goes on where it stopped."""

    def __init__(self, folder: Path, name: str, dtype: str, shape: tuple[int, int], places: np.ndarray | None) -> None:
        self.states, self.runs = folder / f"{name}.states", folder / f"{name}.runs"
        self.progress = folder / f"{name}.json"
        self.dtype, self.shape, self.places = np.dtype(dtype), shape, places
        self.rows = self.num_runs = self.tokens = self.bases = 0

    def fill(self, model: Any, table: LabelledTable, tokenizer: Any, settings: PredictOptions) -> bool:
        """Compute the missing rows; says whether there were any."""
        self._take_up()
        if self.rows >= len(table):
            return False
        rest = (record for index, record in enumerate(records(table)) if index >= self.rows)
        found = predict(model, rest, tokenizer=tokenizer, options=settings)
        while rows := list(islice(found, _BLOCK)):
            self._append(rows)
        return True

    def _take_up(self) -> None:
        """Read how far it came, and cut off what was written after that."""
        if self.progress.exists():
            state = read_json(self.progress)
            self.rows, self.num_runs, self.tokens, self.bases = (
                state[key] for key in ("rows", "runs", "tokens", "bases")
            )
        size = self.num_runs * self.shape[0] * self.shape[1] * self.dtype.itemsize
        for path, length in ((self.states, size), (self.runs, 4 * self.bases)):
            path.touch()
            with open(path, "r+b") as file:
                file.truncate(length)

    def _append(self, rows: Sequence[Any]) -> None:
        try:
            with open(self.states, "ab") as states, open(self.runs, "ab") as runs:
                for row in rows:
                    distinct, number = self._compressed(row.values)
                    distinct.tofile(states)
                    np.where(number == UNSEEN, UNSEEN, number + self.num_runs).astype(np.int32).tofile(runs)
                    self.num_runs += len(distinct)
                    self.bases += len(number)
                    self.tokens += row.num_tokens
        except OSError as error:
            raise InputError(f"{self.states}: cannot be written ({error.strerror or error}).") from None
        self.rows += len(rows)
        state = {"rows": self.rows, "runs": self.num_runs, "tokens": self.tokens, "bases": self.bases}
        write_json(self.progress, state)

    def _compressed(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give distinct states (runs, layers, hidden) and the run of each base, `UNSEEN` for those left out."""
        wanted = ~np.isnan(values).any(axis=1)
        if self.places is not None:
            first, last = np.searchsorted(self.places, (self.bases, self.bases + len(values)))
            sampled = np.zeros(len(values), dtype=bool)
            sampled[self.places[first:last] - self.bases] = True
            wanted &= sampled
        kept = self._narrowed(values[wanted])
        changes = np.ones(len(kept), dtype=bool)
        changes[1:] = (kept[1:] != kept[:-1]).any(axis=1)
        number = np.full(len(values), UNSEEN, dtype=np.int64)
        number[wanted] = np.cumsum(changes) - 1
        return kept[changes].reshape(-1, *self.shape), number

    def _narrowed(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            narrow: np.ndarray = values.astype(self.dtype)
        if not np.isfinite(narrow).all():
            raise InputError(
                f"{self.states}: the model has states beyond what {self.dtype} holds; keep them with "
                "probe.states=float32."
            )
        return narrow


def bases_by_row(table: LabelledTable, places: np.ndarray) -> Iterator[int]:
    """Say in which row of a table each base stands."""
    ends = np.cumsum([len(text) for text in table.sequences])
    yield from np.searchsorted(ends, places, side="right").tolist()
