"""The steps of probing for any kind of label: states once, a choice without the test rows, predictions of a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.benchmarks.probing.base_states import BaseStates, cache_base_states
from longstrand.benchmarks.probing.embeddings import Embeddings, cache_embeddings
from longstrand.benchmarks.probing.probe import ProbeResult, ProbeSettings, probe
from longstrand.benchmarks.probing.probe_bases import predict_bases, probe_bases
from longstrand.data.labelled import LabelledTable
from longstrand.inference.options import PredictOptions

if TYPE_CHECKING:
    from longstrand.tokenization.base import Tokenizer

Cache = Embeddings | BaseStates


def embed_tables(
    model: Any,
    tables: Mapping[str, LabelledTable],
    folder: Path,
    *,
    tokenizer: Tokenizer,
    settings: PredictOptions,
    about: Mapping[str, Any],
    probe_settings: ProbeSettings,
    notice: Callable[[str], None],
) -> Cache:
    """Compute what a probe reads by one pass: vectors of sequences, or states of bases for labels per base.

    Raises:
        InputError, UsageError: as `cache_base_states` and `cache_embeddings`.
    """
    more: dict[str, Any] = {"tokenizer": tokenizer, "settings": settings, "about": about, "notice": notice}
    if tables["train"].task.problem != "token":
        return cache_embeddings(model, tables, folder, **more)
    sampling = {
        "max_bases": probe_settings.max_bases,
        "seed": probe_settings.seed,
        "dtype": probe_settings.states,
    }
    return cache_base_states(model, tables, folder, sampling=sampling, **more)


def choose_probe(cache: Cache, tables: Mapping[str, LabelledTable], settings: ProbeSettings) -> ProbeResult:
    """Score every layer (and pooling), search, and fit the winner on training rows or bases.

    Raises:
        UsageError: as `longstrand.benchmarks.probing.probe.probe`.
    """
    return probe_bases(cache, tables, settings) if isinstance(cache, BaseStates) else probe(cache, tables, settings)


def predict_split(found: ProbeResult, cache: Cache, split: str) -> np.ndarray:
    """Apply the winner to a split: float32 (rows, num_outputs), or for labels per base (bases, num_outputs)."""
    choice = found.chosen.choice
    if isinstance(cache, BaseStates):
        return predict_bases(found, cache, split, found.probe.task.num_outputs)
    return found.probe.predict(cache.get(split, choice.layer, choice.pooling))
