"""Whole prediction jobs: a file in, a finished file out, in parts that survive a kill.

`predict_file` connects the reader (`longstrand.inference.sequences`), the model (`longstrand.inference.predict`) and
the output (`longstrand.inference.resumable`, `longstrand.inference.writers`); `tabulate` turns predictions into the
columns of the output.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from longstrand.config import build
from longstrand.data.rows import Columns, Record, has_intervals
from longstrand.errors import InputError, UsageError
from longstrand.inference.loaded import AnyOptions, LoadedModel, Model, as_trained, fingerprint_input, obey, open_model
from longstrand.inference.options import FileOptions
from longstrand.inference.predict import Prediction, head_of, predict
from longstrand.inference.resumable import Counts, Finished, ResumableOutput, cut_into_parts
from longstrand.inference.sequences import open_genome, read_file
from longstrand.inference.writers import ColumnChunk, Sink, sink_for
from longstrand.models.ensemble import Ensemble
from longstrand.runtime import Advance, check_output

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome
    from longstrand.models.config import Head
    from longstrand.models.network import Network
    from longstrand.models.reading import Reading

PART_ROWS = 1024
PART_BASES = 1 << 23
PART_BYTES = 1 << 28
SMALL_INPUT = 1 << 20
LONGER = 2
"""How many times longer than in training a sequence must be to be worth a note."""

Predictor = Callable[[Iterator[Record]], Iterator[Prediction]]


@dataclass(frozen=True)
class OutputColumns:
    """What the columns of the output are.

    Attributes:
        value_names: names of the numbers, in the order of the model's outputs.
        class_names: names to choose the column ``prediction`` from, or None for no such column.
        threshold: None: the class with the highest number; else all labels above it, joined by ``;``.
        per: what one line of numbers belongs to.
        with_intervals: rows are intervals: columns ``chrom``, ``start``, ``end``, ``strand``.
    """

    value_names: tuple[str, ...]
    class_names: tuple[str, ...] | None = None
    threshold: float | None = None
    per: Literal["sequence", "token", "base", "bin"] = "sequence"
    with_intervals: bool = False


def part_sizes(layout: OutputColumns, part_rows: int | None = None) -> tuple[int, int]:
    """Choose the most rows and bases of a part, so that its numbers stay within `PART_BYTES`."""
    if layout.per == "sequence":
        return part_rows or PART_ROWS, PART_BASES
    return part_rows or PART_ROWS, max(1, PART_BYTES // (4 * len(layout.value_names)))


def tabulate(predictions: Sequence[Prediction], layout: OutputColumns) -> ColumnChunk:
    """Put consecutive predictions into columns."""
    rows: dict[str, list[Any]] = {
        "index": [prediction.index for prediction in predictions],
        "name": [prediction.name for prediction in predictions],
    }
    if layout.with_intervals:
        places = [prediction.interval for prediction in predictions]
        for name in ("chrom", "start", "end", "strand"):
            rows[name] = [getattr(place, name) for place in places]
    width = len(layout.value_names)
    known = [item.values if item.spread is None else np.concatenate([item.values, item.spread], -1)
             for item in predictions]  # fmt: skip
    if layout.per == "sequence":
        values = np.stack(known)
        return ColumnChunk({**rows, **_chosen(values, layout)}, values, layout.value_names)
    lengths = np.array([len(values) for values in known], dtype=np.int64)
    values = np.concatenate([values.reshape(-1, width) for values in known])
    if layout.per in ("base", "bin"):
        steps = [np.arange(length, dtype=np.int64) for length in lengths]
        value_rows: dict[str, Any] = {"position" if layout.per == "base" else "bin": np.concatenate(steps)}
    else:
        empty = np.empty((0, 2), dtype=np.int64)
        offsets = np.concatenate([empty if item.offsets is None else item.offsets for item in predictions])
        value_rows = {"token_start": offsets[:, 0], "token_end": offsets[:, 1]}
    return ColumnChunk(rows, values, layout.value_names, lengths, {**value_rows, **_chosen(values, layout)})


def _chosen(values: np.ndarray, layout: OutputColumns) -> dict[str, list[str | None]]:
    """Name the predicted class (or labels) of each line; None where the numbers are missing."""
    names = layout.class_names
    if names is None:
        return {}
    values = values[:, : len(names)]
    missing = np.isnan(values).any(axis=1)
    if layout.threshold is None:
        best = np.where(missing[:, None], 0, values).argmax(axis=1)
        chosen = [names[place] for place in best.tolist()]
    else:
        above = values > layout.threshold
        chosen = [";".join(name for name, yes in zip(names, line) if yes) for line in above.tolist()]
    return {"prediction": [None if gone else name for gone, name in zip(missing.tolist(), chosen)]}


def count(predictions: Sequence[Prediction]) -> Counts:
    """Sum up what a user should know about the rows: sizes, unknown letters, what was cut or empty."""
    return {
        "sequences": len(predictions),
        "bases": sum(item.num_bases for item in predictions),
        "tokens": sum(item.num_tokens for item in predictions),
        "unknown_letters": sum(item.num_unknown for item in predictions),
        "with_unknown_letters": sum(item.num_unknown > 0 for item in predictions),
        "truncated": sum(item.truncated for item in predictions),
        "empty": sum(item.empty for item in predictions),
        "lower_case_letters": sum(item.num_lower_case for item in predictions),
        "longest_bases": max((item.num_bases for item in predictions), default=0),
    }


def write_predictions(
    records: Iterable[Record],
    predictor: Predictor,
    parts: ResumableOutput,
    sink: Sink,
    layout: OutputColumns,
    *,
    part_rows: int | None = None,
    advance: Advance = lambda number: None,
) -> Finished | None:
    """Predict what is not finished yet, part by part, and join the parts when all are there.

    Args:
        records: all rows of the input, the same in every run and rank.
        predictor: predictions of records, in their order.
        parts: the open output.
        sink: its format.
        layout: its columns.
        part_rows: most rows of a part.
        advance: called with the number of rows that are done, including those of earlier runs.

    Returns:
        The finished output, or None while other ranks still have parts to write.

    Raises:
        InputError: there is no row, or the output cannot be written.
    """
    max_rows, max_bases = part_sizes(layout, part_rows)
    num_parts = 0

    def mine() -> Iterator[tuple[int, Record]]:
        nonlocal num_parts
        part, needed = -1, False
        cut = cut_into_parts(records, lambda record: record.num_bases, max_rows=max_rows, max_bases=max_bases)
        for number, record in cut:
            if number != part:
                part, needed = number, parts.is_mine(number)
            num_parts = number + 1
            if needed:
                yield number, record
            else:
                advance(1)

    def done() -> Iterator[tuple[int, Prediction]]:
        numbered, rows = tee(mine())  # holds what the predictor has read ahead
        for prediction, (number, _) in zip(predictor(record for _, record in rows), numbered):
            advance(1)
            yield number, prediction

    for part, group in groupby(done(), key=lambda item: item[0]):
        found = [prediction for _, prediction in group]
        block = tabulate(found, layout)
        parts.commit(part, partial(sink.write, block), num_rows=len(found), counts=count(found))
    if num_parts == 0:
        raise InputError(f"{parts.output}: the input has no rows, so there is nothing to write.")
    return parts.finish(num_parts, sink.join)


@dataclass(frozen=True)
class JobResult:
    """What a job has done.

    Attributes:
        output: the file or folder.
        num_rows: rows of the input; None: other ranks still have parts to write, the last one joins them.
        counts: totals over all rows (bases, unknown letters, truncated sequences ...).
        notes: what a user should know before trusting the numbers.
        computed: rows that this process has computed.
        seconds: time it took.
        already_finished: there was nothing left to do.
    """

    output: Path
    num_rows: int | None
    counts: Counts
    notes: tuple[str, ...]
    computed: int
    seconds: float
    already_finished: bool

    @classmethod
    def of(
        cls, output: Path, finished: Finished | None, notes: Iterable[str], *, computed: int, started: float,
        already: bool,
    ) -> JobResult:  # fmt: skip
        """Sum up a job that began at ``started`` (of `time.perf_counter`); None: other ranks have parts to write."""
        rows, counts = (finished.num_rows, finished.counts) if finished else (None, {})
        return cls(output, rows, counts, tuple(notes), computed, time.perf_counter() - started, already)


def _identity(
    loaded: LoadedModel, source: Path, genome: Genome | None, options: FileOptions, layout: OutputColumns
) -> dict[str, Any]:
    """Collect what decides the content of an output: weights, tokenizer, input, genome, options, its columns."""
    return {
        "model": loaded.fingerprint(),
        "tokenizer": loaded.tokenizer.fingerprint,
        "input": fingerprint_input(source),
        "genome": None if genome is None else genome.fingerprint,
        **options.identity(),
        "columns": len(layout.value_names),
        "part_size": list(part_sizes(layout, options.part_rows)),
    }


def predict_file(
    model: Model,
    input: str | Path,
    output: str | Path,
    /,
    *,
    genome: Genome | str | Path | None = None,
    overwrite: bool = False,
    advance: Advance = lambda number: None,
    **options: Any,
) -> JobResult:
    """Predict every row of a file into another file; repeated after an interruption, go on.

    Args:
        model: folder of a checkpoint or run, hub id, name of a shipped model, or a loaded model.
        input: FASTA or a table with a column of sequences; BED or a table of intervals with ``genome``.
        output: a name that ends in .csv, .tsv (also .gz), .parquet or .zarr: one result for every row, in order. A row
            without a sequence has missing values.
        genome: what the intervals lie on (FASTA).
        overwrite: replace an output that was made otherwise.
        advance: called with the number of rows that are done, those of earlier runs included.
        **options: of `FileOptions`, for example ``strand="both"``; ``output`` is ``probabilities`` (the default where
            there are classes), ``logits`` or ``embeddings``.

    Raises:
        ConfigError: an option is unknown or wrong.
        InputError: the input is missing or damaged, a sequence is too long, or the output cannot be written.
        UsageError: options, input and model contradict each other.
        ResumeError: an output of other options is there.
    """
    started = time.perf_counter()
    source, target = Path(input).expanduser(), Path(output).expanduser()
    wanted = build(FileOptions, options, "options")
    sink, opened = sink_for(target), open_genome(genome)
    check_output(target, [source, *([opened.path] if opened else []), model])
    embeds = wanted.output == "embeddings"
    small = opened is None and source.is_file() and source.stat().st_size < SMALL_INPUT
    loaded = open_model(model, "encoder" if embeds else None, device=wanted.device, is_small=small)
    intervals = has_intervals(source, Columns(wanted.sequence_column, wanted.pair_column, wanted.name_column))
    used, notes = obey(wanted, loaded, has_pairs=wanted.pair_column is not None)
    if not intervals and "window" not in wanted.model_fields_set:
        used = used.changed(window=None)
    notes += as_trained(wanted, used)
    used, layout = _laid_out(used, loaded.network)
    layout = replace(layout, with_intervals=intervals)
    records = read_file(source, used, opened)
    identity = _identity(loaded, source, opened, used, layout)
    computed, rows = 0, 0

    def predictor(records: Iterator[Record]) -> Iterator[Prediction]:
        nonlocal computed
        options = used.changed(threads=used.threads or loaded.threads)
        for prediction in predict(loaded.network, records, tokenizer=loaded.tokenizer, options=options):
            computed += 1
            yield prediction

    def count_rows(number: int) -> None:
        nonlocal rows
        rows += number
        advance(number)

    with ResumableOutput.open(target, identity, suffix=sink.suffix, overwrite=overwrite) as parts:
        finished = None if overwrite else parts.finished()
        if finished is None:
            finished = write_predictions(
                records, predictor, parts, sink, layout, part_rows=used.part_rows, advance=count_rows
            )
    counts = finished.counts if finished else {}
    notes += too_long_notes(counts.get("longest_bases", 0), loaded.reading) + notices(
        counts, exact_text=used.exact_text
    )
    return JobResult.of(target, finished, notes, computed=computed, started=started, already=rows == 0)


def embed_file(model: Model, input: str | Path, output: str | Path, /, **options: Any) -> JobResult:
    """Turn every row of a file into a vector, or into one per base or token; see `predict_file`.

    Tables have columns e0, e1, ...; vectors per base or token go to .zarr.
    """
    return predict_file(model, input, output, **{**options, "output": "embeddings"})


def _laid_out(options: FileOptions, network: Network) -> tuple[FileOptions, OutputColumns]:
    """Choose the kind of numbers if it is open, and name the columns.

    Raises:
        UsageError: the model has no such output, or the format cannot hold it.
    """
    if options.output == "embeddings":
        width = network.config.hidden_size * max(1, len(options.layers)) * max(1, len(options.poolings))
        unit: Any = {"bases": "base", "tokens": "token"}.get(options.pooling, "sequence")
        return options, OutputColumns(tuple(f"e{number}" for number in range(width)), per=unit)
    head = head_of(network)
    options = with_default_output(options, head)
    unit = {"token": "token" if options.pooling == "tokens" else "base", "bin": "bin"}.get(head.kind, "sequence")
    layout = layout_of(head, options.output, unit)
    if isinstance(network, Ensemble):
        spread = tuple(f"spread_{name}" for name in layout.value_names)
        layout = replace(layout, value_names=(*layout.value_names, *spread))
    return options, layout


def with_default_output(options: AnyOptions, head: Head) -> AnyOptions:
    """Choose probabilities where there are classes, else the predicted numbers, unless the options say."""
    if "output" not in options.model_fields_set:
        options = options.changed(output="logits" if head.problem == "regression" else "probabilities")
    if options.temperature is not None and (options.output != "probabilities" or head.problem == "counts"):
        raise UsageError("a temperature is for the probabilities of classes and labels; leave it out.")
    if options.scale == "trained" and not head.transforms:
        raise UsageError("this model has no transforms of signal tracks, so scale changes nothing; leave it out.")
    return options


def layout_of(head: Head, kind: str, per: Literal["sequence", "token", "base", "bin"]) -> OutputColumns:
    """Name the columns of a head's outputs."""
    names = tuple(head.class_names or (str(number) for number in range(head.num_outputs or 0)))
    if head.problem in ("regression", "counts"):
        columns = ("prediction",) if len(names) == 1 else tuple(f"prediction_{name}" for name in names)
        return OutputColumns(columns, per=per)
    prefix = {"probabilities": "probability", "logits": "logit"}[kind]
    threshold = None if head.problem == "single_label" else {"probabilities": 0.5, "logits": 0.0}[kind]
    return OutputColumns(tuple(f"{prefix}_{name}" for name in names), names, threshold, per=per)


def too_long_notes(longest: int, reading: Reading | None) -> list[str]:
    """Say that sequences are much longer than what the model was trained on."""
    trained = reading.longest_bases if reading else None
    if trained is None or longest <= LONGER * trained:
        return []
    return [
        f"note: sequences of up to {longest:,} bases, but the model was trained on at most {trained:,}; it was never "
        "measured on such lengths."
    ]


def notices(counts: Counts, *, exact_text: bool = False) -> list[str]:
    """Say what a user should know before trusting the numbers."""
    lower, unknown = counts.get("lower_case_letters", 0), counts.get("unknown_letters", 0)
    lines = {
        f"{counts.get('truncated', 0):,} sequences were cut to what the model can read": counts.get("truncated"),
        f"{lower:,} lower-case letters and {unknown:,} characters other than A, C, G and T went to the tokenizer as "
        "they are": exact_text and (lower or unknown),
        f"{lower:,} lower-case letters were read as upper case (--exact-text keeps them)": lower and not exact_text,
        f"{unknown:,} unknown letters in {counts.get('with_unknown_letters', 0):,} sequences were read as N": unknown
        and not exact_text,
        f"{counts.get('empty', 0):,} sequences are empty or too short for the tokenizer; their values are missing": (
            counts.get("empty")
        ),
    }
    return [f"note: {line}." for line, holds in lines.items() if holds]
