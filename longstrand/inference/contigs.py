"""Whole contigs of a FASTA file to tracks: numbers per base or bin, resumable, in memory that no length changes.

A contig is read as the regions between long runs of N. Every region gives a row for each view (strand and shift, see
`longstrand.inference.strands`); a row is a text of its own, as if given to `predict`. What the model says about each
token goes to files (`RowCache`), so that what a process holds does not grow with a contig. A model with memory reads
rows segment by segment, several side by side (`read_segments`); any other reads windows that overlap and keeps the
middle of each (`read_windows`). Both note how far they are, so that a killed process goes on from there. Then the views
are put together base by base, bases are reduced to bins, and all becomes one track (`longstrand.inference.writers`).

Legend: R rows side by side, W tokens of a step, M memory tokens, D hidden size, C columns.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from longstrand.config import build
from longstrand.data.rows import Record
from longstrand.errors import InputError, UsageError, one_of
from longstrand.genome.intervals import Interval, subtract_intervals
from longstrand.genome.sequence import normalise
from longstrand.inference.jobs import JobResult, layout_of, with_default_output
from longstrand.inference.loaded import Model, as_trained, obey, open_model
from longstrand.inference.options import TrackOptions
from longstrand.inference.predict import (
    Prediction,
    evaluation_mode,
    head_of,
    layer_number,
    longest_input,
    predict,
    probabilities,
)
from longstrand.inference.resumable import Finished, ResumableOutput, cut_into_parts, flush
from longstrand.inference.sequences import open_genome
from longstrand.inference.strands import View, average
from longstrand.inference.writers import Bins, TrackFile, TrackLayout, track_file
from longstrand.models.memory.recurrence import encode_step, initial_memory
from longstrand.models.memory.segments import SegmentedRow, SegmentTemplate, make_step, reading_order, segment_lengths
from longstrand.runtime import check_output, read_json, resolve_device, torch_threads, write_json
from longstrand.tokenization.base import Encoding
from longstrand.tokenization.pieces import encode_pieces

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome
    from longstrand.models.network import Network
    from longstrand.tokenization.base import Tokenizer

PART_CONTIGS = 256
PART_BASES = 1 << 25
CHUNK_BYTES = 1 << 25
PIECE = 1 << 18
"""Bases read from the genome at a time."""
SAVE_SECONDS = 20.0
"""Time between two points from which a killed process goes on."""
BASES_A_TOKEN = 4
"""Assumed for the size of a window when none is given; a window with more tokens is refused."""

Advance = Callable[[int], None]


def gap_free_regions(genome: Genome, contig: str, *, shortest_gap: int) -> list[Interval]:
    """Cut a contig at its runs of at least ``shortest_gap`` N (0: nowhere); such ends are left out, too."""
    whole = [Interval(contig, 0, genome.contigs[contig])]
    gaps = subtract_intervals(whole, [Interval(contig, *run) for run in genome.non_n_runs(contig)])
    return subtract_intervals(whole, [gap for gap in gaps if 0 < shortest_gap <= gap.length])


class ContigJob:
    """Everything that is known before the first base is read.

    Args:
        model: with a token, bin or sequence head, or an encoder for embeddings.
        tokenizer: its own.
        genome: the FASTA file.
        options: what is predicted and how contigs are read.
        names: names of the model's outputs.

    Attributes:
        columns: names of the outputs that are written.
        passes: what is kept of each token: ``forward`` and, for a memory that also reads backward, ``backward``.
        width: numbers of a token that are kept; states where a head that is not linear needs both passes (`is_late`).

    Raises:
        UsageError: settings contradict each other or the model.
    """

    def __init__(
        self, model: Network, tokenizer: Tokenizer, genome: Genome, *, options: TrackOptions, names: Sequence[str]
    ) -> None:
        self.model, self.tokenizer, self.genome, self.options = model, tokenizer, genome, options
        if options.exact_text:
            raise UsageError("exact text is for sequences; contigs are read in upper case.")
        if options.pooling not in ("mean", "bases"):
            raise UsageError(f"pooling '{options.pooling}' has no meaning along a contig.")
        if options.layers or options.poolings or options.truncate:
            raise UsageError("layers, poolings and truncate are for sequences, not for contigs.")
        embeds, config, memory = options.output == "embeddings", model.config, model.config.memory
        settings = None if embeds else head_of(model)
        self.problem = None if settings is None else settings.problem
        self.per = "token" if settings is None else settings.kind
        self.unit = (settings.bin_bases or 1) if settings is not None and settings.kind == "bin" else 1
        self.names, self.columns = tuple(names), options.columns or tuple(names)
        self.chosen = [self.names.index(one_of(name, self.names, "column")) for name in self.columns]
        self.streams = memory is not None and self.per == "token" and options.window is None
        self.window, self.step = (0, 0) if self.streams else self._window()
        self.device = resolve_device(options.device) if options.device else next(model.parameters()).device
        output = "logits" if options.output == "probabilities" else options.output
        self.of_one_view = options.changed(output=output, strand="+", shifts=(0,), tta=False)
        self.encoder = getattr(model, "encoder", model)
        head: Any = getattr(model, "classifier", None)
        self.head: Any = head if self.streams and not embeds else None
        self.layer = layer_number(options.layer, config.num_hidden_layers) if embeds else -1
        both = self.streams and memory is not None and memory.direction == "bidirectional"
        self.passes = ("forward", "backward") if both else ("forward",)
        self.is_late = both and self.head is not None and self.head.pooler is not None
        self.width = config.hidden_size if self.is_late else len(self.names)

    def _window(self) -> tuple[int, int]:
        """Choose window and step, whole bins of the model.

        Raises:
            UsageError: the model reads any length, so that somebody has to say.
        """
        window, limit = self.options.window, self.options.max_tokens or longest_input(self.model.config)
        if window is None:
            if limit is None or self.per == "sequence" or self.model.config.memory is not None:
                raise UsageError("say how many bases the model is to read at a time: --window 2000.")
            per_token = 1 if self.tokenizer.overlapping else getattr(self.tokenizer, "k", BASES_A_TOKEN)
            window = max(1, (limit - self.tokenizer.num_special_tokens()) * per_token)
        if window < self.unit:
            raise UsageError(f"a window of {window:,} bases is shorter than a bin of the model ({self.unit:,} bases).")
        window -= window % self.unit
        step = min(self.options.step or max(1, window - window // 4), window)
        return window, max(self.unit, step - step % self.unit)

    def rows(self, contigs: Sequence[str], folder: Path) -> list[RowCache]:
        """List what is read of contigs: their regions on every view; for bins of a model, whole ones."""
        found: list[RowCache] = []
        for contig in contigs:
            for region in gap_free_regions(self.genome, contig, shortest_gap=self.options.gap):
                whole = Interval(contig, region.start, region.end - region.length % self.unit)
                for view in self.options.views if whole.length else ():
                    found.append(RowCache(folder / f"row-{len(found):06d}", whole, view, self.width))
        return found

    def keep(self, states: torch.Tensor) -> torch.Tensor:
        """Turn states (n, D) into what is kept.

        A linear head gives the same of an average as the average of its outputs; any other form needs the states.
        """
        return states if self.head is None or self.is_late else self.head(states)

    @torch.inference_mode()
    def finished(self, row: RowCache, first: int, last: int) -> np.ndarray:
        """Give the final numbers of tokens ``first`` to ``last - 1`` of a row, (n, C)."""
        passes = [row.read(name, first, last) for name in self.passes]
        values: np.ndarray = passes[0] if len(passes) == 1 else (passes[0] + passes[1]) / 2
        if self.is_late:
            with evaluation_mode(self.model):
                values = self.head(torch.from_numpy(values).to(self.device)).float().cpu().numpy()
        return values


@dataclass
class RowCache:
    """What the model says about one row, in files.

    ``ids`` (n,) int32, ``offsets`` (n, 2) int64 in reading order, ``forward`` and ``backward`` (n, width) float32.

    Attributes:
        path: their name without ending.
        region: the bases of the contig that are read, moved by the shift of the view.
        view: strand and shift.
        width: numbers of a token.
    """

    path: Path
    region: Interval
    view: View
    width: int = 1

    @property
    def start(self) -> int:
        """First base, on the contig; may be negative."""
        return self.region.start + self.view[1]

    def fetch(self, genome: Genome, begin: int, end: int) -> str:
        """Read letters ``begin`` to ``end - 1`` in the direction of reading; N beyond the contig."""
        if self.view[0] == "-":
            begin, end = self.region.length - end, self.region.length - begin
        return genome.fetch_padded(self.region.chrom, self.start + begin, self.start + end, self.view[0])

    def pieces(self, genome: Genome, alphabet: str, counts: dict[str, int] | None = None) -> Iterator[str]:
        """Read all letters as the tokenizer knows them, bounded pieces at a time; add up what was changed."""
        for begin in range(0, self.region.length, PIECE):
            text = normalise(self.fetch(genome, begin, min(begin + PIECE, self.region.length)), alphabet)
            if counts is not None:
                counts["lower_case_letters"] += text.num_lower_case
                counts["unknown_letters"] += len(text.sequence) - sum(map(text.sequence.count, "ACGT"))
            yield text.sequence

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        descriptor = os.open(f"{self.path}.{name}", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def write(self, name: str, first: int, array: np.ndarray) -> None:
        """Write records from number ``first`` on."""
        if len(array):
            with self._open(name) as file:
                os.pwrite(file, np.ascontiguousarray(array).tobytes(), first * (array.nbytes // len(array)))

    def read(self, name: str, first: int, end: int) -> np.ndarray:
        """Read records ``first`` to ``end - 1``."""
        kind, shape = {"ids": ("i4", ()), "offsets": ("i8", (2,))}.get(name, ("f4", (self.width,)))
        size = np.dtype(kind).itemsize * int(np.prod(shape, dtype=np.int64))
        with self._open(name) as file:
            data = os.pread(file, (end - first) * size, first * size)
        return np.frombuffer(data, dtype=kind).reshape(-1, *shape)

    def sync(self) -> None:
        """Force what was written to the disk."""
        for path in self.path.parent.glob(f"{self.path.name}.*"):
            flush(path)

    def finish(self, counts: dict[str, int]) -> None:
        """Say that the row's tokens are all there; ``counts`` has their number as ``tokens``."""
        self.sync()
        write_json(Path(f"{self.path}.json"), counts)

    @property
    def is_finished(self) -> bool:
        """Whether `finish` was called."""
        return Path(f"{self.path}.json").exists()

    @cached_property
    def counts(self) -> dict[str, int]:
        """What `finish` wrote."""
        counts: dict[str, int] = read_json(Path(f"{self.path}.json"))
        return counts

    def bases(self, begin: int, end: int, job: ContigJob) -> np.ndarray:
        """Spread values over bases ``begin`` to ``end - 1`` of the contig, in its order.

        Returns:
            (end - begin, columns) float32; NaN where the row says nothing.
        """
        first, last = max(begin, self.start), min(end, self.start + self.region.length)
        reverse, past = self.view[0] == "-", self.start + self.region.length
        low, high = (past - last, past - first) if reverse else (first - self.start, last - self.start)
        from_token, to_token = (self._bisect(1, low), self._bisect(0, high - 1)) if low < high else (0, 0)
        values = job.finished(self, from_token, to_token)
        whole = np.full((end - begin, values.shape[1]), np.nan, dtype=np.float32)
        if to_token > from_token:
            offsets = np.clip(self.read("offsets", from_token, to_token), low, high) - low
            nothing = np.zeros(len(offsets), dtype=np.int32)
            inside = Encoding(nothing, offsets.astype(np.int32), high - low, nothing.astype(bool)).to_bases(values)
            whole[first - begin : last - begin] = inside[::-1] if reverse else inside
        return whole

    def _bisect(self, column: int, place: int) -> int:
        """Count the leading tokens whose start (0) or end (1), which ascend, is at most a place."""
        low, high = 0, self.counts["tokens"]
        while low < high:
            middle = (low + high) // 2
            if self.read("offsets", middle, middle + 1)[0, column] <= place:
                low = middle + 1
            else:
                high = middle
        return low


def tokenize_row(row: RowCache, job: ContigJob) -> None:
    """Write the ids and offsets of a row, unless they are there.

    The special tokens around a text are content where segments have none of their own; they cover no base.
    """
    if row.is_finished:
        return
    counts, number = {"lower_case_letters": 0, "unknown_letters": 0}, 0
    template, memory = job.tokenizer.template, job.model.config.memory
    around = memory is not None and memory.form == "mem_x_mem"

    def write(ids: np.ndarray | Sequence[int], offsets: np.ndarray) -> None:
        nonlocal number
        row.write("ids", number, np.asarray(ids, dtype=np.int32))
        row.write("offsets", number, offsets)
        number += len(ids)

    for ids, offsets in encode_pieces(job.tokenizer, row.pieces(job.genome, job.tokenizer.alphabet, counts)):
        if around and not number:
            write(template.prefix, np.zeros((len(template.prefix), 2), dtype=np.int64))
        write(ids, offsets)
    if around and number:
        write(template.suffix, np.full((len(template.suffix), 2), row.region.length, dtype=np.int64))
    row.finish({"tokens": number, **counts})


class _Stream:
    """One pass over one row: its segments (start and end token) in the order of reading, and how many are read."""

    def __init__(self, row: RowCache, name: str, job: ContigJob, done: int = 0) -> None:
        settings = job.model.config.memory
        assert settings is not None
        stops = np.cumsum(segment_lengths(row.counts["tokens"], settings.room, settings.split))
        bounds = np.stack((np.concatenate(([0], stops[:-1])), stops), axis=1)
        order, num_context = reading_order(len(bounds), settings.context.left, settings.context.right)
        cut = SegmentedRow(np.empty(0, dtype=np.int64), bounds, order, num_context)
        self.row, self.name, self.done = row, name, done
        self.segments = bounds[cut.backward_order if name == "backward" else order].tolist()


class _Streams:
    """Passes over rows side by side, each with a memory of its own; one that ends makes room for the next."""

    def __init__(self, rows: Sequence[RowCache], job: ContigJob, state: Path) -> None:
        self._job, self._encoder, self._state = job, job.encoder, state
        settings = job.model.config.memory
        assert settings is not None
        self._tasks = [(row, name) for row in rows if row.counts["tokens"] for name in job.passes]
        self._size = max(1, job.options.batch_tokens // settings.segment_length)
        self._before = len(SegmentTemplate.of(settings, self._encoder.config.pad_token_id).before)
        self._next, self._streams = 0, list[_Stream]()
        self._memory = initial_memory(self._encoder).detach()[None][:0]
        if state.exists():
            with np.load(state) as saved:
                self._next = int(saved["next"])
                for task, done in saved["streams"].tolist():
                    row, name = self._tasks[task]
                    self._streams.append(_Stream(row, name, job, done))
                self._memory = torch.from_numpy(saved["memory"]).to(job.device, self._memory.dtype)

    def fill(self) -> bool:
        """Drop streams that are done, begin new ones; say whether there is anything to read."""
        alive = [place for place, stream in enumerate(self._streams) if stream.done < len(stream.segments)]
        memories = [self._memory[alive]]
        self._streams = [self._streams[place] for place in alive]
        while len(self._streams) < self._size and self._next < len(self._tasks):
            row, name = self._tasks[self._next]
            self._streams.append(_Stream(row, name, self._job))
            memories.append(initial_memory(self._encoder, name == "backward").detach()[None])
            self._next += 1
        self._memory = torch.cat(memories)
        return bool(self._streams)

    def advance(self) -> int:
        """Read the next segment of every stream; give the number of tokens."""
        job, places = self._job, [stream.segments[stream.done] for stream in self._streams]
        ids = [stream.row.read("ids", *place).astype(np.int64) for stream, place in zip(self._streams, places)]
        step = make_step([np.arange(len(own)) for own in ids], ids, self._encoder.config)
        mixed, all_layers = (
            job.options.precision == "bf16",
            job.layer not in (-1, self._encoder.config.num_hidden_layers),
        )
        with torch.autocast(job.device.type, torch.bfloat16) if mixed else nullcontext():
            states, self._memory = encode_step(self._encoder, step, self._memory, keep=all_layers)
            chosen = states[job.layer if all_layers else -1]
            kept = torch.cat([row[self._before : self._before + len(own)] for row, own in zip(chosen, ids)])
            values = job.keep(kept).float().cpu().numpy()
        parts = np.split(values, np.cumsum([len(own) for own in ids])[:-1])
        for stream, (first, _), part in zip(self._streams, places, parts):
            stream.row.write(stream.name, first, part)
            stream.done += 1
        return len(values)

    def save(self) -> None:
        """Note how far all streams are; what they wrote is on the disk before."""
        streams = [[self._tasks.index((stream.row, stream.name)), stream.done] for stream in self._streams]
        for stream in self._streams:
            stream.row.sync()
        temporary = self._state.with_suffix(".tmp.npz")
        table = np.array(streams, dtype=np.int64).reshape(-1, 2)
        np.savez(temporary, next=self._next, streams=table, memory=self._memory.float().cpu().numpy())
        flush(temporary)
        os.replace(temporary, self._state)


def read_segments(rows: Sequence[RowCache], job: ContigJob, state: Path, advance: Advance) -> None:
    """Read rows with memory from where they are (``state``) to their end; tokens first, then all segments."""
    for row in rows:
        tokenize_row(row, job)
    with evaluation_mode(job.model), torch.inference_mode():
        streams, saved = _Streams(rows, job, state), time.monotonic()
        while streams.fill():
            advance(streams.advance())
            if time.monotonic() - saved >= SAVE_SECONDS:
                streams.save()
                saved = time.monotonic()


def read_windows(row: RowCache, job: ContigJob, advance: Advance) -> None:
    """Read a row in overlapping windows, from where it is to its end.

    The row is divided into steps; each is predicted by the window around it, moved inwards at the ends of the row (for
    bins on their grid). A sequence model gives a step the number of its window.
    """
    if row.is_finished:
        return
    progress, length = Path(f"{row.path}.progress"), row.region.length
    done = read_json(progress) if progress.exists() else {"windows": 0, "tokens": 0}
    begins = range(0, length, job.step)[done["windows"] :]
    margin = (job.window - job.step) // 2
    margin -= margin % job.unit
    starts = [max(0, min(begin - margin, length - job.window)) for begin in begins]
    saved, options = time.monotonic(), job.of_one_view.changed(pooling="tokens" if job.per == "token" else "mean")
    records = (_window(row, job, start) for start in starts)
    for begin, start, item in zip(
        begins, starts, predict(job.model, records, tokenizer=job.tokenizer, options=options)
    ):
        offsets, values = _kept(item, start, (begin, min(begin + job.step, length)), job)
        row.write("offsets", done["tokens"], offsets)
        row.write("forward", done["tokens"], values)
        done["tokens"] += len(offsets)
        done["windows"] += 1
        advance(item.num_tokens)
        if time.monotonic() - saved >= SAVE_SECONDS:
            row.sync()
            write_json(progress, done)
            saved = time.monotonic()
    counts = {"lower_case_letters": 0, "unknown_letters": 0}
    for _ in row.pieces(job.genome, job.tokenizer.alphabet, counts):
        pass
    row.finish({**done, **counts})


def _window(row: RowCache, job: ContigJob, start: int) -> Record:
    where = f"{job.genome.path}, {row.region.chrom}, window at base {row.start + start + 1}"
    end = min(start + job.window, row.region.length)
    return Record(0, where, row.fetch(job.genome, start, end), where=where)


def _kept(item: Prediction, start: int, span: tuple[int, int], job: ContigJob) -> tuple[np.ndarray, np.ndarray]:
    """Give offsets (n, 2) in the row and values (n, C) of what a window says about its step."""
    if job.per == "sequence":
        return np.array([span], dtype=np.int64), item.values[None]
    if job.per == "bin":
        edges = np.arange(len(item.values), dtype=np.int64) * job.unit
        offsets = np.stack((edges, edges + job.unit), axis=1) + start
    else:
        assert item.offsets is not None
        offsets = item.offsets + start
    inside = (offsets[:, 1] > span[0]) & (offsets[:, 0] < span[1])
    return np.clip(offsets[inside], *span), item.values[inside]


def predict_tracks(
    model: Model, genome: Genome | str | Path, output: str | Path, /, *, overwrite: bool = False, **options: Any
) -> JobResult:
    """Predict whole contigs into a track (bedGraph, BigWig or Zarr); repeated after an interruption, go on.

    Args:
        model: folder of a checkpoint or run, hub id, name of a shipped model, or a loaded model.
        genome: the contigs (FASTA).
        output: a name that ends in .bedgraph, .bw or .zarr.
        overwrite: replace an output that was made otherwise.
        **options: of `TrackOptions`, for example ``contigs="chr1", columns="cage", bin_size=100``.

    Raises:
        LongstrandError: as `predict_contigs` and `longstrand.inference.jobs.predict_file`.
    """
    started = time.perf_counter()
    target, wanted = Path(output).expanduser(), build(TrackOptions, options, "options")
    track_file(target)
    opened = open_genome(genome)
    check_output(target, [opened.path, model])
    loaded = open_model(model, "encoder" if wanted.output == "embeddings" else None, device=wanted.device)
    used, notes = obey(wanted, loaded.reading, has_pairs=False)
    notes += as_trained(wanted, used)
    names = tuple(f"e{number}" for number in range(loaded.network.config.hidden_size))
    if used.output != "embeddings":
        used = with_default_output(used, head_of(loaded.network))
        names = layout_of(head_of(loaded.network), used.output, "sequence").value_names
    job = ContigJob(loaded.network, loaded.tokenizer, opened, options=used, names=names)
    read, existed = 0, target.exists() and not overwrite

    def advance(number: int) -> None:
        nonlocal read
        read += number

    identity = {"model": loaded.fingerprint(), "tokenizer": loaded.tokenizer.fingerprint}
    contigs = () if used.contigs == ("all",) else used.contigs
    with torch_threads(used.threads or loaded.threads):
        done = predict_contigs(job, target, contigs=contigs, identity=identity, overwrite=overwrite, advance=advance)
    counts = done.counts if done else {}
    if skipped := counts.get("bases", 0) - counts.get("bases_read", 0):
        notes.append(f"note: {skipped:,} bases in long runs of N were not read; they have no value.")
    seconds = time.perf_counter() - started
    return JobResult(target, done.num_rows if done else None, counts, tuple(notes), read, seconds, existed and not read)


def predict_contigs(
    job: ContigJob,
    output: Path,
    *,
    contigs: Sequence[str] = (),
    identity: dict[str, Any] | None = None,
    overwrite: bool = False,
    advance: Advance = lambda number: None,
) -> Finished | None:
    """Write a track of contigs; repeated after a kill, go on.

    Args:
        job: model, genome and settings.
        output: the track; its ending is the format.
        contigs: which, in the order of the file; empty: all.
        identity: more that decides the content, such as a fingerprint of the model.
        overwrite: replace an output of other settings.
        advance: called with tokens that were read.

    Returns:
        The finished track, or None while other ranks still have parts to write.

    Raises:
        InputError: a contig is not in the file, or the output cannot be written.
        UsageError: the format cannot hold the columns.
        ResumeError: an output of other settings is there.
    """
    target = track_file(output)
    if target.columns_at_most is not None and len(job.columns) > target.columns_at_most:
        raise UsageError(
            f"{output.name}: this format holds one column, the model gives {len(job.columns)}; choose one with "
            f"--column ({', '.join(job.columns[:8])}), or write a .zarr."
        )
    job.genome.check_chroms(contigs)
    chosen = {name: length for name, length in job.genome.contigs.items() if not contigs or name in contigs}
    attributes = {"reduce": job.options.reduce, "output": job.options.output}
    layout = TrackLayout(chosen, job.options.bin_size, job.columns, attributes)
    settings = {**job.options.identity(), "columns": list(job.columns), "genome": job.genome.fingerprint}
    settings |= {**(identity or {}), "contigs": list(chosen)}
    home = next(job.model.parameters()).device
    job.model.to(job.device)
    try:
        with ResumableOutput.open(output, settings, suffix=".f32", overwrite=overwrite) as parts:
            done = None if overwrite else parts.finished()
            return done or _write(job, parts, layout, target, advance)
    finally:
        job.model.to(home)


def _write(
    job: ContigJob, parts: ResumableOutput, layout: TrackLayout, target: TrackFile, advance: Advance
) -> Finished | None:
    cut = cut_into_parts(layout.contigs, layout.contigs.__getitem__, max_rows=PART_CONTIGS, max_bases=PART_BASES)
    groups = [[name for _, name in group] for _, group in groupby(cut, key=lambda item: item[0])]
    for number, names in enumerate(groups):
        if parts.is_mine(number):
            _write_part(job, parts, layout, (number, names), advance)

    def join(files: Sequence[Path], path: Path) -> None:
        target.write(read_parts(files, groups, layout), layout, path)

    return parts.finish(len(groups), join)


def _write_part(
    job: ContigJob, parts: ResumableOutput, layout: TrackLayout, part: tuple[int, list[str]], advance: Advance
) -> None:
    """Read the contigs of a part and write their bins, one contig after the other."""
    number, names = part
    folder = parts.folder / f"rows-{number:06d}"
    folder.mkdir(exist_ok=True)
    rows = job.rows(names, folder)
    if job.streams:
        read_segments(rows, job, folder / "state.npz", advance)
    else:
        for row in rows:
            read_windows(row, job, advance)
    once = rows[:: len(job.options.views)]
    counts = {key: sum(row.counts.get(key, 0) for row in rows) for key in ("tokens", "windows")}
    counts |= {key: sum(row.counts[key] for row in once) for key in ("lower_case_letters", "unknown_letters")}
    counts["bases"] = sum(layout.contigs[name] for name in names)
    counts["bases_read"] = sum(row.region.length for row in once)

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            for name in names:
                own = [row for row in rows if row.region.chrom == name]
                for values in _bins(job, layout.contigs[name], own):
                    file.write(values.tobytes())

    parts.commit(number, write, num_rows=len(names), counts=counts)
    shutil.rmtree(folder)


def _bins(job: ContigJob, length: int, rows: list[RowCache]) -> Iterator[np.ndarray]:
    """Give the bins of a contig in order, float32 (some bins, columns), from bounded numbers of bases."""
    chunk = max(1, CHUNK_BYTES // (4 * len(job.names) * max(1, len(job.options.views))))
    size, carried, total, count = job.options.bin_size, -1, np.empty(0), np.empty(0)
    for begin in range(0, length, chunk):
        end = min(begin + chunk, length)
        values = _bases(job, begin, end, rows)[:, job.chosen]
        known = ~np.isnan(values)
        first = begin // size
        edges = np.maximum(np.arange(first, (end - 1) // size + 1) * size - begin, 0)
        sums = np.add.reduceat(np.where(known, values, 0), edges, axis=0, dtype=np.float64)
        counts = np.add.reduceat(known, edges, axis=0, dtype=np.int64)
        if carried == first:
            sums[0] += total
            counts[0] += count
        whole = len(sums) if end == length or end % size == 0 else len(sums) - 1
        if whole:
            divisor = counts[:whole] if job.options.reduce == "mean" else np.ones_like(counts[:whole])
            empty = np.full(divisor.shape, np.nan)
            bins = np.divide(sums[:whole], divisor, out=empty, where=counts[:whole] > 0)
            yield np.ascontiguousarray(bins, dtype=np.float32)
        carried, total, count = (first + whole, sums[-1], counts[-1]) if whole < len(sums) else (-1, total, count)


def _bases(job: ContigJob, begin: int, end: int, rows: list[RowCache]) -> np.ndarray:
    """Put regions and views together over some bases of a contig, (bases, outputs of the model)."""
    whole = np.full((end - begin, len(job.names)), np.nan, dtype=np.float32)
    is_rate = job.problem == "counts" and job.options.output == "probabilities"
    for region, views in groupby(rows, key=lambda row: row.region):
        low, high = max(begin, region.start), min(end, region.end)
        if low >= high:
            continue
        found = [row.bases(low, high, job) for row in views]
        values = average([probabilities(one, "counts") for one in found] if is_rate else found)
        if job.options.output == "probabilities" and not is_rate:
            values = probabilities(values, job.problem)
        whole[low - begin : high - begin] = values
    return whole


def read_parts(files: Sequence[Path], groups: list[list[str]], layout: TrackLayout) -> Iterator[Bins]:
    """Read finished parts in order, bounded pieces at a time.

    Raises:
        InputError: a part is shorter than it was.
    """
    width = len(layout.names)
    most = max(1, CHUNK_BYTES // (4 * width))
    for path, names in zip(files, groups):
        with open(path, "rb") as file:
            for name in names:
                bins = layout.num_bins(name)
                for first in range(0, bins, most):
                    number = min(most, bins - first)
                    values = np.frombuffer(file.read(number * width * 4), dtype=np.float32)
                    if len(values) != number * width:
                        raise InputError(f"{path}: shorter than it was; remove the folder {path.parent} and repeat.")
                    yield name, first, values.reshape(-1, width)
