"""Embeddings of labelled tables, all layers and poolings from one forward pass, kept in a Zarr folder.

A cache belongs to one model, one set of tables and one strand policy: all that is written beside it, and another one
is computed when any of it changes. An interrupted computation goes on at the block of rows where it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.data.labelled import LabelledTable
from longstrand.errors import UsageError
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import predict
from longstrand.runtime import fingerprint_bytes, read_json, write_json
from longstrand.training.measure import records

if TYPE_CHECKING:
    from longstrand.tokenization.base import Tokenizer

POOLINGS = ("cls", "mean", "max")
_BLOCK = 256


@dataclass(frozen=True)
class Embeddings:
    """Cached vectors of the rows of some splits.

    Attributes:
        folder: with one Zarr array (layers, poolings, rows, hidden) a split.
        layers: 0 = embedding output, 1 = first layer, ...
        poolings: of `POOLINGS`.
        num_tokens: {split: tokens that the model saw}.
        seconds: the forward pass took, 0 if the cache was complete.
    """

    folder: Path
    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    num_tokens: Mapping[str, int]
    seconds: float = 0.0

    def get(self, split: str, layer: int, pooling: str) -> np.ndarray:
        """Read the vectors of one layer and pooling: float32 (rows, hidden); rows without a token are zeros."""
        import zarr

        array: Any = zarr.open_array(str(self.folder / f"{split}.zarr"), mode="r")
        block = array[self.layers.index(layer), self.poolings.index(pooling)]
        return np.nan_to_num(np.asarray(block))


def cache_embeddings(
    model: Any,
    tables: Mapping[str, LabelledTable],
    folder: Path,
    *,
    tokenizer: Tokenizer,
    settings: PredictOptions,
    about: Mapping[str, Any],
    notice: Any = None,
) -> Embeddings:
    """Compute the vectors of every row in every layer and pooling, or take up what is there.

    Args:
        model: ours, with or without a head.
        tables: splits by name.
        folder: of the cache.
        tokenizer: the model's own.
        settings: of `predict`; empty ``layers`` mean all, empty ``poolings`` all that the tokenizer allows.
        about: what identifies the model (fingerprints); the tables and settings are added.
        notice: receives a sentence when a stale cache is thrown away.

    Raises:
        UsageError: the tables have labels per base (see `longstrand.benchmarks.probing.base_states`) or per bin.
    """
    import time

    if any(isinstance(table.targets, list) for table in tables.values()):
        raise UsageError("probing is for labels per sequence or per base; labels per bin cannot be probed yet.")
    layers = settings.layers or tuple(range(model.config.num_hidden_layers + 1))
    allowed = POOLINGS if tokenizer.cls_token_id is not None else POOLINGS[1:]
    poolings: Any = settings.poolings or allowed
    settings = settings.changed(output="embeddings", pooling="mean", layers=layers, poolings=poolings, truncate=True)
    facts = {
        **about,
        "layers": list(layers),
        "poolings": list(poolings),
        "strand": settings.strand,
        "precision": settings.precision,
        "max_tokens": settings.max_tokens,
        "tables": {name: _fingerprint(table) for name, table in tables.items()},
    }
    facts = json.loads(json.dumps(facts))
    described = folder / "about.json"
    if described.exists() and read_json(described) != facts:
        if notice is not None:
            notice(f"{folder}: embeddings of another model or other rows; they are computed anew")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(described, facts)
    start = time.perf_counter()
    counts = [_fill(model, table, folder / name, tokenizer, settings) for name, table in tables.items()]
    seconds = time.perf_counter() - start if any(worked for _, worked in counts) else 0.0
    num_tokens = {name: count for name, (count, _) in zip(tables, counts)}
    return Embeddings(folder, tuple(layers), tuple(poolings), num_tokens, seconds)


def _fingerprint(table: LabelledTable) -> str:
    text = "\n".join([*table.sequences, "|", *(table.pairs or [])])
    return fingerprint_bytes(text.encode())


def _fill(model: Any, table: LabelledTable, stem: Path, tokenizer: Any, settings: PredictOptions) -> tuple[int, bool]:
    """Compute the missing rows of a split in blocks; gives the tokens of all rows, and whether there was work."""
    import zarr

    shape = (len(settings.layers), len(settings.poolings), len(table), model.config.hidden_size)
    progress = stem.with_suffix(".json")
    done, num_tokens = 0, 0
    path = str(stem.with_suffix(".zarr"))
    if progress.exists():
        state = read_json(progress)
        done, num_tokens = state["rows"], state["tokens"]
        array: Any = zarr.open_array(path, mode="r+")
    else:
        chunks = (1, 1, min(_BLOCK, max(1, len(table))), shape[3])
        array = zarr.create_array(path, shape=shape, chunks=chunks, dtype="float32", overwrite=True)
    if done >= len(table):
        return num_tokens, False
    rest = (record for index, record in enumerate(records(table)) if index >= done)
    found = predict(model, rest, tokenizer=tokenizer, options=settings)
    while rows := list(islice(found, _BLOCK)):
        values = np.stack([row.values for row in rows]).reshape(len(rows), *shape[:2], shape[3])
        array[:, :, done : done + len(rows)] = values.transpose(1, 2, 0, 3)
        done += len(rows)
        num_tokens += sum(row.num_tokens for row in rows)
        write_json(progress, {"rows": done, "tokens": num_tokens})
    return num_tokens, True


def parse_layers(words: Sequence[str], num_hidden_layers: int) -> tuple[int, ...]:
    """Turn ``all``, or numbers (negative: from the end), into layers.

    Raises:
        UsageError: there is no such layer, or a word is no number.
    """
    from longstrand.inference.predict import layer_number

    if list(words) == ["all"]:
        return tuple(range(num_hidden_layers + 1))
    try:
        return tuple(dict.fromkeys(layer_number(int(word), num_hidden_layers) for word in words))
    except ValueError:
        raise UsageError(f"layers are 'all' or numbers with commas, got '{','.join(words)}'.") from None
