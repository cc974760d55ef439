"""The verbs of inference: a model and sequences in, arrays out, in the order of the input.

Each takes a folder (of a model or a run), the name of a shipped model, a hub id, or a loaded model; and sequences as
one text, a list, a pandas or polars column or frame, or a path (`longstrand.inference.sequences.as_records`). Input is
read as training read it, unless an option says otherwise, which is a warning.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.config import build
from longstrand.errors import InputError, UsageError
from longstrand.inference.jobs import notices, too_long_notes, with_default_output
from longstrand.inference.loaded import LoadedModel, Model, obey, open_model, window_of
from longstrand.inference.options import FileOptions
from longstrand.inference.predict import Prediction, head_of
from longstrand.inference.predict import predict as run_model
from longstrand.inference.sequences import Sequences, as_records, open_genome

if TYPE_CHECKING:
    from longstrand.data.rows import Record
    from longstrand.genome.fasta import Genome


def iter_predict(
    model: Model, sequences: Sequences, *, genome: Genome | str | Path | None = None, **options: Any
) -> Iterator[Prediction]:
    """Predict sequences one after the other; memory use does not grow with their number.

    Args:
        model: folder of a model or a run, name of a shipped model, hub id, or a loaded model.
        sequences: one text of nucleotide letters, a list or column of texts (or pairs of texts), a frame with a column
            ``sequence``, or a path. A missing one (None, NaN) has missing values.
        genome: for a file of intervals, what they lie on (FASTA).
        **options: of `longstrand.inference.options.FileOptions`, for example ``strand="both"``; ``output`` is
            ``probabilities`` (the default where there are classes), ``logits`` or ``embeddings``.

    Yields:
        A `longstrand.inference.predict.Prediction` for every sequence, in order.

    Raises:
        ConfigError: an option is unknown or wrong.
        InputError: there is no such file or column, a letter is no nucleotide, or a sequence is too long.
        UsageError: options, input and model contradict each other.
    """
    wanted = build(FileOptions, options, "options")
    loaded = open_model(model, "encoder" if wanted.output == "embeddings" else None, device=wanted.device)
    return _iterate(loaded, sequences, wanted, genome)


def _iterate(
    loaded: LoadedModel, sequences: Sequences, wanted: FileOptions, genome: Genome | str | Path | None
) -> Iterator[Prediction]:
    reading = loaded.reading
    options = wanted.changed(window=window_of(wanted.window, reading, intervals=genome is not None))
    records = as_records(sequences, genome=open_genome(genome), options=options)
    first: Record | None = next(records, None)
    has_pairs = None if first is None else first.second is not None
    used, notes = obey(options, loaded, has_pairs=has_pairs)
    if wanted.output != "embeddings":
        used = with_default_output(used, head_of(loaded.network))
    used = used.changed(threads=used.threads or loaded.threads)
    for note in notes:
        warn(note)
    rows = records if first is None else chain([first], records)
    longest = num_cut = 0
    for prediction in run_model(loaded.network, rows, tokenizer=loaded.tokenizer, options=used):
        if prediction.num_bases > longest:
            if not too_long_notes(longest, reading):
                for note in too_long_notes(prediction.num_bases, reading):
                    warn(note)
            longest = prediction.num_bases
        num_cut += prediction.truncated
        yield prediction
    for note in notices({"truncated": num_cut}):
        warn(note)


def warn(note: str) -> None:
    """Warn; Python shows the line of the user that called a verb, however deep we are."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("longstrand."):
        frame, level = frame.f_back, level + 1
    warnings.warn(note.removeprefix("note: "), stacklevel=level)


def embed(model: Model, sequences: Sequences, pooling: str = "mean", layer: int = -1, **options: Any) -> np.ndarray:
    """Turn sequences into vectors.

    Args:
        model: as `iter_predict`.
        sequences: as `iter_predict`.
        pooling: ``mean`` or ``max`` over the tokens without special ones, ``mean_all`` with them, ``cls``.
        layer: 0 = embedding output, 1 = first layer, -1 = last (after the final norm).
        **options: ``genome`` and as `iter_predict`.

    Returns:
        float32 (n, hidden size), NaN for a missing sequence.

    Raises:
        UsageError: a pooling that gives many vectors a sequence; else as `iter_predict`.
    """
    if pooling in ("tokens", "bases"):
        raise UsageError(
            f"pooling '{pooling}' gives many vectors a sequence: "
            f"iter_predict(model, sequences, output='embeddings', pooling='{pooling}')."
        )
    options |= {"output": "embeddings", "pooling": pooling, "layer": layer}
    found = iter_predict(model, sequences, **options)
    return _stacked(found)


def predict(model: Model, sequences: Sequences, output: str | None = None, **options: Any) -> np.ndarray:
    """Predict sequences with a model that has one answer for each.

    Args:
        model: as `iter_predict`.
        sequences: as `iter_predict`.
        output: ``probabilities`` or ``logits``; None: probabilities where there are classes, else predicted numbers.
        **options: ``genome`` and as `iter_predict`.

    Returns:
        float32 (n, outputs), NaN for a missing sequence.

    Raises:
        UsageError: the model labels bases or bins (see `predict_bases`); else as `iter_predict`.
    """
    return _stacked(_of_head(model, sequences, ("sequence",), "predict_bases", output, options))


def predict_bases(model: Model, sequences: Sequences, output: str | None = None, **options: Any) -> list[np.ndarray]:
    """Predict every base or bin of sequences.

    Args:
        model: with a token, base or bin head; else as `iter_predict`.
        sequences: as `iter_predict`.
        output: as `predict`.
        **options: ``genome`` and as `iter_predict`.

    Returns:
        For each sequence float32 (bases or bins, outputs), NaN where the model read nothing.

    Raises:
        UsageError: the model has one answer a sequence (see `predict`); else as `iter_predict`.
    """
    found = _of_head(model, sequences, ("token", "bin"), "predict", output, options)
    return [prediction.values for prediction in found]


def _of_head(
    model: Model, sequences: Sequences, kinds: tuple[str, ...], other: str, output: str | None, options: dict[str, Any]
) -> Iterator[Prediction]:
    if output == "embeddings":
        raise UsageError("for embeddings use embed(model, sequences).")
    genome = options.pop("genome", None)
    wanted = build(FileOptions, options if output is None else {**options, "output": output}, "options")
    loaded = open_model(model, device=wanted.device)
    kind = head_of(loaded.network).kind
    if kind not in kinds:
        raise UsageError(f"this model has a {kind} head; use {other}(model, sequences).")
    return _iterate(loaded, sequences, wanted, genome)


def _stacked(predictions: Iterator[Prediction]) -> np.ndarray:
    rows = [prediction.values for prediction in predictions]
    if not rows:
        raise InputError("there is no sequence.")
    return np.stack(rows)
