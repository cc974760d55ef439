"""States of a frozen encoder for the rows of labelled tables: every layer from one forward pass, kept on disk.

What is probed is one vector a row, layer and pooling; with labels per base, one vector a base and layer. A base has the
mean of the states of the tokens that cover it, so neighbouring bases of a token have the same states: each distinct run
is kept once, with the number of the run of every base, and of the training rows only sampled bases are kept.

A cache belongs to one model, one set of tables, labels and settings, which are written into it; it is computed anew
when any of them changes. It is made in parts (`longstrand.inference.resumable`), by one process: an interrupted
computation goes on at the part where it stopped.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.data.labelled import LabelledTable
from longstrand.errors import InputError, UsageError
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import layer_number, longest_input, predict
from longstrand.inference.resumable import ResumableOutput
from longstrand.runtime import Notice, fingerprint_bytes, generator, read_json, write_json
from longstrand.training.measure import records

if TYPE_CHECKING:
    from longstrand.models.network import Network
    from longstrand.tokenization.base import Tokenizer

POOLINGS = ("cls", "mean", "max")
BASES = "bases"
"""The pooling of labels per base: none."""

UNSEEN = -1
"""Run of a base that the model did not see, or that was not sampled."""

FEWEST_BATCH_TOKENS = 512
PART_ROWS = {True: 16, False: 256}
"""Rows of a part, with labels per base and without."""

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
class States:
    """Cached states of some splits.

    Attributes:
        folder: with ``SPLIT/states`` (vectors, layers, poolings, hidden) and, for bases, ``SPLIT/runs`` as raw arrays.
        layers: 0 = embedding output, 1 = first layer, ...
        poolings: of `POOLINGS`, or `BASES` alone.
        hidden: numbers of a vector.
        dtype: of the states on disk.
        samples: labels per base: for ``train`` and ``valid`` the bases to fit and to score on, which the model saw.
        seconds: the forward pass took, 0 if the cache was complete.
    """

    folder: Path
    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    hidden: int
    dtype: str = "float32"
    samples: Mapping[str, Sample] = field(default_factory=dict)
    seconds: float = 0.0

    def read(self, split: str, layer: int, pooling: str) -> np.ndarray:
        """Read vectors: float32 (rows or sampled bases, hidden); a row without a token is zeros."""
        vectors = self._vectors(split)[:, self.layers.index(layer), self.poolings.index(pooling)]
        if split in self.samples:
            vectors = vectors[self.runs(split)[self.samples[split].places]]
        return np.nan_to_num(np.asarray(vectors, dtype=np.float32))

    def apply(
        self, split: str, layer: int, pooling: str, answer: Callable[[np.ndarray], np.ndarray], num_outputs: int
    ) -> np.ndarray:
        """Apply a probe to every row, or base, of a split: float32 (n, num_outputs); NaN where no base was seen.

        ``answer`` turns vectors (m, hidden) into values (m, num_outputs); it gets each distinct vector once.
        """
        if pooling != BASES:
            return answer(self.read(split, layer, pooling))
        vectors = self._vectors(split)
        values = np.full((len(vectors) + 1, num_outputs), np.nan, dtype=np.float32)  # the last one is of UNSEEN
        for start in range(0, len(vectors), _CHUNK):
            part = np.asarray(vectors[start : start + _CHUNK, self.layers.index(layer), 0], dtype=np.float32)
            values[start : start + len(part)] = answer(part)
        found: np.ndarray = values[self.runs(split)]
        return found

    def runs(self, split: str) -> np.ndarray:
        """Read the number of the run of every base: int32 (bases,)."""
        return _mapped(self.folder / split / "runs", "int32", ())

    def _vectors(self, split: str) -> np.ndarray:
        return _mapped(self.folder / split / "states", self.dtype, (len(self.layers), len(self.poolings), self.hidden))


def _mapped(path: Path, dtype: str, inner: Sequence[int]) -> np.ndarray:
    """Map a raw file as an array (n, *inner); an empty file cannot be mapped."""
    if path.stat().st_size == 0:
        return np.zeros((0, *inner), dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r").reshape(-1, *inner)


def sample_bases(table: LabelledTable, max_bases: int, seed: int, purpose: str) -> Sample:
    """Choose at most ``max_bases`` labelled bases: as many of each class as there are, up to an equal share.

    What a rare class leaves over goes to the others; weights say how many bases each one stands for, so that fits and
    scores see the classes as they are.
    """
    targets = np.concatenate(list(table.targets))
    kinds, counts = np.unique(targets[targets >= 0], return_counts=True)
    room, shares = max_bases, {}
    for left, place in zip(range(len(kinds), 0, -1), np.argsort(counts, kind="stable")):
        shares[int(kinds[place])] = min(int(counts[place]), room // left)
        room -= shares[int(kinds[place])]
    places, weights = [np.zeros(0, np.int64)], [np.zeros(0)]
    for kind, count in zip(kinds, counts):
        every, size = np.flatnonzero(targets == kind), shares[int(kind)]
        chosen = every if size == count else generator(seed, int(kind), purpose).permutation(every)[:size]
        places.append(chosen)
        weights.append(np.full(len(chosen), count / max(1, len(chosen))))
    joined = np.concatenate(places)
    order = np.argsort(joined, kind="stable")
    return Sample(joined[order], np.concatenate(weights)[order])


def probe_options(
    model: Network, layers: Sequence[str], poolings: Sequence[str], *, max_tokens: int | None, **options: Any
) -> PredictOptions:
    """Return the options of the forward pass.

    Args:
        model: the encoder.
        layers: ``all``, or numbers as words (negative: from the end).
        poolings: of `POOLINGS`; empty: all that the tokenizer allows.
        max_tokens: longest input; None: what the model reads.
        options: further ones of `PredictOptions`.

    Raises:
        UsageError: there is no such layer, or a word is no number.
    """
    limits = [value for value in (longest_input(model.config), max_tokens) if value is not None]
    wanted: Any = {"layers": parse_layers(layers, model.config.num_hidden_layers), "poolings": tuple(poolings)}
    return PredictOptions(output="embeddings", max_tokens=min(limits) if limits else None, **wanted, **options)


def parse_layers(words: Sequence[str], num_hidden_layers: int) -> tuple[int, ...]:
    """Turn ``all``, or numbers (negative: from the end), into layers.

    Raises:
        UsageError: there is no such layer, or a word is no number.
    """
    if list(words) == ["all"]:
        return tuple(range(num_hidden_layers + 1))
    try:
        return tuple(dict.fromkeys(layer_number(int(word), num_hidden_layers) for word in words))
    except ValueError:
        raise UsageError(f"layers are 'all' or numbers with commas, got '{','.join(words)}'.") from None


def cache_states(
    model: Network,
    tables: Mapping[str, LabelledTable],
    folder: Path,
    *,
    tokenizer: Tokenizer,
    options: PredictOptions,
    identity: Mapping[str, Any],
    sampling: Mapping[str, Any],
    notice: Notice = lambda sentence: None,
) -> States:
    """Compute the states of every row, or base, by one pass, or take up what is there.

    Args:
        model: ours, with or without a head.
        tables: ``train``, ``valid`` and perhaps ``test``.
        folder: of the cache.
        tokenizer: the model's own.
        options: as `probe_options` gives them.
        identity: what identifies the model (fingerprints); tables and options are added.
        sampling: labels per base: ``max_bases`` (of train, and of valid, that are used at most), ``seed`` and ``dtype``
            (float16 or float32).
        notice: receives sentences: what is sampled, a stale cache.

    Raises:
        UsageError: the tables have labels per bin.
        InputError: a state is too large for float16, or the disk is full.
    """
    task = tables["train"].task
    if task.bin_bases is not None:
        raise UsageError("probing is for labels per sequence or per base; labels per bin cannot be probed yet.")
    per_base = task.problem == "token"
    layers = options.layers or tuple(range(model.config.num_hidden_layers + 1))
    poolings: Any = options.poolings or (POOLINGS if tokenizer.cls_token_id is not None else POOLINGS[1:])
    if per_base:  # a buffer holds the states of all layers
        tokens = min(options.batch_tokens, max(FEWEST_BATCH_TOKENS, options.batch_tokens // len(layers)))
        options = options.changed(pooling=BASES, poolings=(), layers=layers, truncate=True, batch_tokens=tokens)
        poolings = (BASES,)
    else:
        options = options.changed(pooling="mean", poolings=poolings, layers=layers, truncate=True)
    facts = {**identity, **options.identity(), **(sampling if per_base else {})}
    facts["tables"] = {name: _fingerprint(table) for name, table in tables.items()}
    facts = json.loads(json.dumps(facts))
    _clear_other(folder, facts, notice)
    samples = {}
    if per_base:
        for name in ("train", "valid"):
            purpose = f"probe bases of {name}"
            samples[name] = sample_bases(tables[name], sampling["max_bases"], sampling["seed"], purpose)
        _announce(samples, notice)
    dtype = sampling["dtype"] if per_base else "float32"
    shape = (len(layers), len(poolings), model.config.hidden_size)
    start, worked = time.perf_counter(), False
    for name, table in tables.items():
        kept = samples["train"].places if per_base and name == "train" else None
        writer = _Writer(folder / name, np.dtype(dtype), shape, per_base, kept)
        worked |= writer.write(model, table, tokenizer, options, facts)
    seconds = time.perf_counter() - start if worked else 0.0
    found = States(folder, tuple(layers), tuple(poolings), shape[2], dtype, {}, seconds)
    seen = {name: _seen(sample, found.runs(name)) for name, sample in samples.items()}
    return replace(found, samples=seen)


def _clear_other(folder: Path, facts: Mapping[str, Any], notice: Notice) -> None:
    """Throw away states of another model, other rows or another sample; write what these are of."""
    described = folder / "about.json"
    if described.exists() and read_json(described) != facts:
        notice(f"{folder}: states of another model, other rows or another sample; they are computed anew")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(described, facts)


def _announce(samples: Mapping[str, Sample], notice: Notice) -> None:
    totals = {name: round(sample.weights.sum()) for name, sample in samples.items()}
    if any(len(sample) < totals[name] for name, sample in samples.items()):
        parts = [f"{len(sample):,} of {totals[name]:,} labelled bases of {name}" for name, sample in samples.items()]
        notice(f"probing uses {' and '.join(parts)}, chosen by seed, rare classes first, weighted back to their share")


def _seen(sample: Sample, runs: np.ndarray) -> Sample:
    """Leave out bases that the model did not see (past the cut)."""
    kept = runs[sample.places] != UNSEEN
    return Sample(sample.places[kept], sample.weights[kept])


def _fingerprint(table: LabelledTable) -> str:
    """Identify sequences and, where a sample depends on them, labels."""
    text = "\n".join([*table.sequences, "|", *(table.pairs or [])]).encode()
    labels = np.concatenate(table.targets).tobytes() if isinstance(table.targets, list) else b""
    return fingerprint_bytes(text + labels)


@dataclass(frozen=True)
class _Writer:
    """Writes the states of one split in parts.

    Attributes:
        folder: that the joined arrays are in.
        dtype: of the states.
        shape: of one vector: layers, poolings, hidden.
        per_base: one vector a base.
        places: int64: bases that are kept; None: all.
    """

    folder: Path
    dtype: np.dtype[Any]
    shape: tuple[int, int, int]
    per_base: bool
    places: np.ndarray | None

    def write(
        self, model: Network, table: LabelledTable, tokenizer: Tokenizer, options: PredictOptions, facts: dict[str, Any]
    ) -> bool:
        """Compute the missing parts; returns whether there were any."""
        size = PART_ROWS[self.per_base]
        count = -(-len(table) // size)
        starts = np.concatenate([[0], np.cumsum([len(text) for text in table.sequences])])
        with ResumableOutput.open(self.folder, facts, suffix=".npz") as output:
            if output.finished() is not None:
                return False
            mine = [part for part in range(count) if output.is_mine(part)]
            wanted = {part * size + place for part in mine for place in range(size)}
            rows = (record for index, record in enumerate(records(table)) if index in wanted)
            found = predict(model, rows, tokenizer=tokenizer, options=options)
            for part in mine:
                members = list(islice(found, size))
                arrays = self._arrays([row.values for row in members], int(starts[part * size]))
                output.commit(part, _saver(arrays), num_rows=len(members), counts={})
            done = output.finish(count, self._join)
            assert done is not None, "a cache is made by one process"
            return bool(mine)

    def _arrays(self, values: Sequence[np.ndarray], first_base: int) -> dict[str, np.ndarray]:
        """Return the vectors of the rows of a part and, for bases, the run of each, numbered from 0."""
        if not self.per_base:
            return {"states": self._narrowed(np.stack(values)).reshape(-1, *self.shape)}
        joined = np.concatenate(values)
        wanted = ~np.isnan(joined).any(axis=1)
        if self.places is not None:
            low, high = np.searchsorted(self.places, (first_base, first_base + len(joined)))
            sampled = np.zeros(len(joined), dtype=bool)
            sampled[self.places[low:high] - first_base] = True
            wanted &= sampled
        kept = self._narrowed(joined[wanted])
        changes = np.ones(len(kept), dtype=bool)
        changes[1:] = (kept[1:] != kept[:-1]).any(axis=1)
        runs = np.full(len(joined), UNSEEN, dtype=np.int32)
        runs[wanted] = np.cumsum(changes) - 1
        return {"states": kept[changes].reshape(-1, *self.shape), "runs": runs}

    def _narrowed(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            narrow: np.ndarray = values.astype(self.dtype)
        if np.isinf(narrow).any():
            raise InputError(
                f"{self.folder}: the model has states beyond what {self.dtype} holds; keep them with "
                "probe.states=float32."
            )
        return narrow

    def _join(self, parts: Iterable[Path], target: Path) -> None:
        target.mkdir()
        total = 0
        with open(target / "states", "wb") as states, open(target / "runs", "wb") as runs:
            for path in parts:
                with np.load(path) as arrays:
                    arrays["states"].tofile(states)
                    if self.per_base:
                        number = arrays["runs"]
                        np.where(number == UNSEEN, UNSEEN, number + total).astype(np.int32).tofile(runs)
                    total += len(arrays["states"])


def _saver(arrays: Mapping[str, np.ndarray]) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    return save


def rows_of_bases(table: LabelledTable, places: np.ndarray) -> np.ndarray:
    """Return the row of a table that each base stands in."""
    found: np.ndarray = np.searchsorted(np.cumsum([len(text) for text in table.sequences]), places, side="right")
    return found
