"""Whole contigs of a FASTA file to tracks: numbers per base or bin, resumable, in memory that no length changes.

`predict_contigs` reads every contig with the model (`longstrand.inference.contig_readers`), puts the views together
base by base as `predict` does, reduces bases to bins, and joins all into one track (`longstrand.inference.tracks`).
Contigs are grouped into parts; finished parts and the state within a part survive a kill
(`longstrand.inference.resumable`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.config import build
from longstrand.errors import InputError, UsageError, one_of
from longstrand.inference.contig_readers import (
    ContigRow,
    Outputs,
    Reading,
    Spool,
    read_segments,
    read_windows,
    stretches,
)  # fmt: skip
from longstrand.inference.jobs import JobResult, layout_of, with_default_output
from longstrand.inference.loaded import as_trained, obey, open_model
from longstrand.inference.options import PredictOptions, TrackOptions
from longstrand.inference.predict import head_of, longest_input, probabilities
from longstrand.inference.resumable import Finished, ResumableOutput, cut_into_parts
from longstrand.inference.sequences import open_genome
from longstrand.inference.strands import average
from longstrand.inference.tracks import Stripe, TrackLayout, track_file
from longstrand.runtime import check_output, resolve_device, torch_threads

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome

PART_CONTIGS = 256
PART_BASES = 1 << 25
CHUNK_BYTES = 1 << 25
BASES_A_TOKEN = 4
"""Assumed for the size of a window when none is given; a window with more tokens is refused."""


@dataclass(frozen=True)
class _Contig:
    name: str
    num_bases: int


class ContigJob:
    """Everything that is known before the first base is read.

    Args:
        model: with a token, bin or sequence head, or an encoder for embeddings.
        tokenizer: its own.
        genome: the FASTA file.
        options: what is predicted and how contigs are read.
        names: names of the model's outputs.

    Raises:
        UsageError: settings contradict each other or the model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        genome: Genome,
        *,
        options: TrackOptions,
        names: Sequence[str],
    ) -> None:
        self.model, self.genome, self.options, self.names = model, genome, options, tuple(names)
        embeds = options.output == "embeddings"
        if options.exact_text:
            raise UsageError("exact text is for sequences; contigs are read in upper case.")
        if options.pooling not in ("mean", "bases") or options.layers or options.poolings or options.truncate:
            raise UsageError(
                f"pooling '{options.pooling}' has no meaning along a contig."
                if options.pooling not in ("mean", "bases")
                else "layers, poolings and truncate are for sequences, not for contigs."
            )
        head = None if embeds else head_of(model)
        self.problem = None if head is None else head.problem
        self.per = "token" if head is None else head.kind
        memory = model.config.memory
        self.streams = memory is not None and self.per == "token" and options.window is None
        self.chosen = [self._place(name) for name in options.columns or names]
        unit = head.bin_bases if self.per == "bin" else 1
        window, step = (0, 0) if self.streams else self._window(tokenizer, unit)
        self.reading = Reading(
            model,
            tokenizer,
            genome,
            self._of_one_view(),
            window,
            step,
            resolve_device(options.device) if options.device else next(model.parameters()).device,
        )

    def _of_one_view(self) -> PredictOptions:
        output = "logits" if self.options.output == "probabilities" else self.options.output
        return self.options.changed(output=output, strand="+", shifts=(0,), tta=False)

    def _place(self, name: str) -> int:
        return self.names.index(one_of(name, self.names, "column"))

    def _window(self, tokenizer: Any, unit: int) -> tuple[int, int]:
        """Choose window and step, whole bins of the model.

        Raises:
            UsageError: the model reads any length, so that somebody has to say.
        """
        window, limit = self.options.window, self.options.max_tokens or longest_input(self.model.config)
        if window is None:
            if limit is None or self.per == "sequence" or self.model.config.memory is not None:
                raise UsageError("say how many bases the model is to read at a time: --window 2000.")
            per_token = getattr(tokenizer, "k", BASES_A_TOKEN) if not tokenizer.overlapping else 1
            window = max(1, (limit - tokenizer.num_special_tokens()) * per_token)
        if window < unit:
            raise UsageError(f"a window of {window:,} bases is shorter than a bin of the model ({unit:,} bases).")
        window -= window % unit
        step = min(self.options.step or max(1, window - window // 4), window)
        return window, max(unit, step - step % unit)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Name the columns that are written."""
        return tuple(self.names[place] for place in self.chosen)

    def identity(self) -> dict[str, Any]:
        """Give what decides the content, besides model and genome."""
        return {**self.options.identity(), "columns": list(self.columns), "genome": self.genome.fingerprint}

    def rows(self, contig: str) -> list[ContigRow]:
        """List what is read of a contig: its stretches on every view; for bins of a model, whole ones."""
        found = []
        for one in stretches(self.genome, contig, shortest_gap=self.options.gap):
            if self.per == "bin":
                unit = self.model.head_settings.bin_bases
                one = type(one)(one.contig, one.start, one.end - (one.end - one.start) % unit)
            if one.end > one.start:
                found += [ContigRow(one, view) for view in self.options.views]
        return found


def predict_contigs(
    job: ContigJob,
    output: Path,
    *,
    contigs: Sequence[str] = (),
    identity: dict[str, Any] | None = None,
    overwrite: bool = False,
    advance: Callable[[int], None] = lambda number: None,
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
    about = {"reduce": job.options.reduce, "output": job.options.output}
    layout = TrackLayout(chosen, job.options.bin_size, job.columns, about)
    settings = {**job.identity(), **(identity or {}), "contigs": list(chosen)}
    home = next(job.model.parameters()).device
    job.model.to(job.reading.device)
    try:
        with ResumableOutput.open(output, settings, suffix=".f32", overwrite=overwrite) as parts:
            done = None if overwrite else parts.finished()
            return done or _write(job, parts, layout, target, advance)
    finally:
        job.model.to(home)


def predict_contig_file(
    model: Any, fasta: str | Path, output: str | Path, /, *, overwrite: bool = False, **options: Any
) -> JobResult:
    """Write a track of whole contigs, or what is left of it.

    Args:
        model: folder of a checkpoint or run, hub id, name of a shipped model, or a loaded model.
        fasta: the contigs.
        output: a name that ends in .bedgraph, .bw or .zarr.
        overwrite: replace an output that was made otherwise.
        **options: of `TrackOptions`.

    Raises:
        LongstrandError: as `predict_contigs` and `longstrand.inference.jobs.predict_file`.
    """
    started = time.perf_counter()
    target, wanted = Path(output).expanduser(), build(TrackOptions, options, "options")
    track_file(target)
    genome = open_genome(fasta)
    check_output(target, [genome.path, model])
    embeds = wanted.output == "embeddings"
    loaded = open_model(model, "encoder" if embeds else None, device=wanted.device)
    used, notes = obey(wanted, loaded.reading)
    notes += as_trained(wanted, used)
    if embeds:
        names = tuple(f"e{number}" for number in range(loaded.network.config.hidden_size))
    else:
        head = head_of(loaded.network)
        used = with_default_output(used, head)
        names = layout_of(head, used.output, "sequence").value_names
    job = ContigJob(loaded.network, loaded.tokenizer, genome, options=used, names=names)
    read, existed = 0, target.exists() and not overwrite

    def advance(number: int) -> None:
        nonlocal read
        read += number

    identity = {"model": loaded.fingerprint(), "tokenizer": loaded.tokenizer.fingerprint}
    contigs = () if used.contigs == ("all",) else used.contigs
    with torch_threads(used.threads or loaded.threads):
        done = predict_contigs(job, target, contigs=contigs, identity=identity, overwrite=overwrite, advance=advance)
    counts = done.counts if done else {}
    skipped = counts.get("bases", 0) - counts.get("bases_read", 0)
    if skipped:
        notes.append(f"note: {skipped:,} bases in long runs of N were not read; they have no value.")
    seconds = time.perf_counter() - started
    return JobResult(target, done.num_rows if done else None, counts, tuple(notes), read, seconds, existed and not read)


def _write(job: ContigJob, parts: ResumableOutput, layout: TrackLayout, target: Any, advance: Any) -> Finished | None:
    groups: list[list[str]] = []
    sized = [_Contig(*item) for item in layout.contigs.items()]
    for number, contig in cut_into_parts(sized, max_rows=PART_CONTIGS, max_bases=PART_BASES):
        if number == len(groups):
            groups.append([])
        groups[number].append(contig.name)
    for number, names in enumerate(groups):
        if parts.is_mine(number):
            _write_part(job, parts, layout, (number, names), advance)

    def join(files: Sequence[Path], path: Path) -> None:
        target.write(_stripes(files, groups, layout), layout, path)

    return parts.finish(len(groups), join)


def _write_part(
    job: ContigJob, parts: ResumableOutput, layout: TrackLayout, part: tuple[int, list[str]], advance: Any
) -> None:
    """Read the contigs of a part and write their bins, one contig after the other."""
    number, names = part
    folder = parts.folder / f"spool-{number:06d}"
    folder.mkdir(exist_ok=True)
    outputs = Outputs(job.reading) if job.streams else None
    width = outputs.width if outputs else len(job.names)
    rows = [row for name in names for row in job.rows(name)]
    spools = [Spool(folder / f"row-{place:06d}", row, width) for place, row in enumerate(rows)]
    try:
        if outputs:
            read_segments(spools, job.reading, outputs, folder / "lanes.npz", advance)
        else:
            for spool in spools:
                read_windows(spool, job.reading, job.per, advance)
        abouts = [spool.about() or {} for spool in spools]
        counts = {key: sum(about.get(key, 0) for about in abouts) for key in ("tokens", "windows")}
        views = len(job.options.views)
        for key in ("lower_case_letters", "unknown_letters"):
            counts[key] = sum(about[key] for about in abouts[::views])
        counts["bases"] = sum(layout.contigs[name] for name in names)
        counts["bases_read"] = sum(row.num_bases for row in rows[::views])

        def write(path: Path) -> None:
            with open(path, "wb") as file:
                for name in names:
                    mine = [spool for spool in spools if spool.row.stretch.contig == name]
                    for values in _bins(job, layout.contigs[name], mine, outputs):
                        file.write(values.tobytes())

        parts.commit(number, write, num_rows=len(names), counts=counts)
    finally:
        for spool in spools:
            spool.close()
    shutil.rmtree(folder)


def _bins(job: ContigJob, length: int, spools: list[Spool], outputs: Outputs | None) -> Iterator[np.ndarray]:
    """Give the bins of a contig in order, float32 (some bins, columns), from bounded stretches of bases."""
    chunk = max(1, CHUNK_BYTES // (4 * len(job.names) * max(1, len(job.options.views))))
    size, carried, total, count = job.options.bin_size, -1, np.empty(0), np.empty(0)
    for begin in range(0, length, chunk):
        end = min(begin + chunk, length)
        values = _bases(job, (begin, end), spools, outputs)[:, job.chosen]
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
            yield _reduced(sums[:whole], counts[:whole], job.options.reduce)
        carried, total, count = (first + whole, sums[-1], counts[-1]) if whole < len(sums) else (-1, total, count)


def _reduced(sums: np.ndarray, counts: np.ndarray, reduce: str) -> np.ndarray:
    divisor = counts if reduce == "mean" else np.ones_like(counts)
    bins = np.divide(sums, divisor, out=np.full(sums.shape, np.nan), where=counts > 0)
    return np.ascontiguousarray(bins, dtype=np.float32)


def _bases(job: ContigJob, span: tuple[int, int], spools: list[Spool], outputs: Outputs | None) -> np.ndarray:
    """Put stretches and views together over some bases of a contig, (bases, outputs of the model)."""
    begin, end = span
    whole = np.full((end - begin, len(job.names)), np.nan, dtype=np.float32)
    views = len(job.options.views)
    is_rate = job.problem == "counts" and job.options.output == "probabilities"
    for place in range(0, len(spools), views):
        stretch = spools[place].row.stretch
        low, high = max(begin, stretch.start), min(end, stretch.end)
        if low >= high:
            continue
        combine = outputs.combine if outputs else _windowed
        found = [spool.bases(low, high, combine) for spool in spools[place : place + views]]
        values = average([probabilities(one, "counts") for one in found] if is_rate else found)
        if job.options.output == "probabilities" and not is_rate:
            values = probabilities(values, job.problem)
        whole[low - begin : high - begin] = values
    return whole


def _windowed(spool: Spool, first: int, last: int) -> np.ndarray:
    return spool.read("forward", first, last)


def _stripes(files: Sequence[Path], groups: list[list[str]], layout: TrackLayout) -> Iterator[Stripe]:
    """Read finished parts in order, bounded pieces at a time."""
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
                    yield Stripe(name, first, values.reshape(-1, width))
