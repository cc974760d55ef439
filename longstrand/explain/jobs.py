"""Attribute sequences in memory, or a file into a folder of maps, in parts that survive a kill.

The folder holds ``attributions.zarr`` (values of all bases, and where each row begins), ``sequences.tsv`` (one line a
row), ``seqlets.bed`` (stretches of strong values), a track as BigWig or bedGraph and, with checks, a report.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.config import build
from longstrand.errors import InputError, UsageError
from longstrand.explain.attribution import STATUSES, Attribution, Explainer
from longstrand.explain.cost import Cost, estimate, refuse_if_long
from longstrand.explain.maps import (
    ARRAYS,
    NUMBERS,
    PART_BASES,
    SEQLETS,
    TABLE,
    AttributionJob,
    Maps,
    Place,
    inside_of,
    write_seqlets,
    write_track,
)
from longstrand.explain.options import AttributeOptions
from longstrand.explain.page import write_page
from longstrand.explain.trust import passes_of_tests
from longstrand.genome.sequence import has_letters
from longstrand.inference.jobs import JobResult, too_long_notes
from longstrand.inference.loaded import LoadedModel, Model, fingerprint_input, open_model, window_of
from longstrand.inference.resumable import ResumableOutput, cut_into_parts
from longstrand.inference.sequences import Sequences, as_records
from longstrand.inference.verbs import warn
from longstrand.inference.writers import ColumnChunk, CsvSink, ZarrSink
from longstrand.models.network import Network
from longstrand.runtime import check_output, torch_threads, world_size

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome


def attribute_file(
    model: Model, input: str | Path, output: str | Path, /, *, genome: Genome | str | Path | None = None,
    others: Sequence[str | Path] = (), sites: str | Path | None = None, overwrite: bool = False,
    advance: Callable[[int], None] = lambda number: None, begin: Callable[[Cost], None] = lambda cost: None,
    tick: Callable[[float], None] = lambda work: None, **options: Any,
) -> JobResult:  # fmt: skip
    """Explain every row of a file into a folder; repeated after an interruption, go on.

    Args:
        model: as `longstrand.attribute`.
        input: FASTA or a table with a column of sequences; BED or a table of intervals with ``genome``.
        output: folder to write.
        genome: what the intervals lie on (FASTA).
        others: further models of the same task (other seeds) whose maps the report compares.
        sites: intervals (on the genome, or on the sequences by name) that a map should find: the report measures that.
        overwrite: replace an output that was made otherwise.
        advance: called with the number of rows that are done.
        begin: called with what the run will take; not before short ones.
        tick: called with the work that is done, of `Cost.work`.
        **options: of `AttributeOptions`.

    Raises:
        LongstrandError: a file is missing or damaged, the model has no such output, a row is longer than the model
            reads, it would take longer than ``most_minutes``, or an output of other options is there.
    """
    started, target, source = time.perf_counter(), Path(output).expanduser(), Path(input).expanduser()
    wanted = build(AttributeOptions, options, "options")
    check_output(target, [source, genome, model, sites, *others])
    if wanted.check == 0 and (others or sites):
        raise UsageError("other models and sites are for the report; leave out --check 0.")
    job = AttributionJob.open(model, source, genome, wanted, tick)
    if not any(has_letters(record.sequence) for record in job.records()):
        raise InputError(f"{source}: no row has an A, C, G or T, so there is nothing to explain.")
    if sites is not None:
        inside = inside_of(Path(sites).expanduser(), job.options.window, job.genome)
        if not any(inside(record).any() for record in job.records()):
            raise InputError(f"{sites}: no site lies on a row of {source}.")
    opened = _others(job, others)
    networks = {name: one.network for name, one in opened.items()}
    extra: dict[str, Any] = {
        "others": [one.fingerprint() for one in opened.values()],
        "sites": None if sites is None else fingerprint_input(Path(sites).expanduser()),
    }
    sink, computed = ZarrSink(), 0
    with (
        ResumableOutput.open(target, job.identity() | extra, suffix=sink.suffix, overwrite=overwrite) as parts,
        torch_threads(job.options.threads or job.loaded.threads),
    ):
        finished = None if overwrite else parts.finished()
        already = finished is not None
        if finished is None:
            cost = _cost(job, len(others))
            if cost is not None:
                refuse_if_long(cost, job.explainer)
                begin(cost)
            cut = cut_into_parts(
                job.records(), lambda record: record.num_bases, max_rows=job.options.part_rows, max_bases=PART_BASES
            )
            for number, group in groupby(cut, key=lambda item: item[0]):
                records = [record for _, record in group]
                if parts.is_mine(number):
                    before, found = job.explainer.left_out, list(job.explainer.explain(records))
                    computed += len(found)
                    counts = _counts(found, job.explainer.left_out - before)
                    write = partial(sink.write, job.block(found))
                    parts.commit(number, write, num_rows=len(found), counts=counts)
                elif cost is not None:
                    tick(cost.work * sum(record.num_bases for record in records) / cost.bases)
                advance(len(records))
            finished = parts.finish(number + 1, partial(_join, job, sink, networks, sites))
    counts = finished.counts if finished else {}
    notes = left_out_notes(counts.get("left_out", 0))
    notes += [f"note: {counts[name]:,} rows: {STATUSES[name]} ({name})." for name in STATUSES if name in counts][1:]
    if finished is not None:
        lengths = np.diff(Maps(target, intervals=job.intervals).offsets)
        notes += too_long_notes(int(lengths.max(initial=0)), job.loaded.network.reading)
    if finished is not None and (target / "report.json").exists():
        notes += [f"warning: {line}" for line in json.loads((target / "report.json").read_text())["warnings"]]
    return JobResult.of(target, finished, notes, computed=computed, started=started, already=already)


def attribute(
    model: Model, sequences: Sequences, *, genome: Genome | str | None = None, **options: Any
) -> list[Attribution]:
    """Explain what a model says about sequences: one value a base, in their order.

    Args:
        model: folder of a checkpoint or run, name of a shipped model, hub id, or a loaded model; any head, with memory,
            merged adapters and any attention.
        sequences: one text, a list or column of them, or a path (FASTA, table, BED with ``genome``).
        genome: what the intervals of a file lie on.
        **options: of `AttributeOptions`, for example ``method="ism"``, ``target="promoter"``, ``strand="both"``.

    Returns:
        One `Attribution` a row; ``values`` has one number a base.

    Raises:
        ConfigError: an option is unknown or wrong.
        InputError: a row is no DNA or longer than the model reads.
        UsageError: the model has no such output or baseline, options contradict each other, or it would take longer
            than ``most_minutes``.
    """
    wanted = build(AttributeOptions, options, "options")
    loaded = open_model(model, device=wanted.device, is_small=True)
    wanted = wanted.changed(window=window_of(wanted.window, loaded.reading, intervals=genome is not None))
    with torch_threads(wanted.threads or loaded.threads):
        explainer = Explainer(loaded.network, wanted)
        records = list(as_records(sequences, genome=genome, options=wanted.reading()))
        if cost := estimate(explainer, records):
            refuse_if_long(cost, explainer)
        found = list(explainer.explain(records))
    notes = too_long_notes(max((len(one.values) for one in found), default=0), loaded.network.reading)
    for note in [*notes, *left_out_notes(explainer.left_out)]:
        warn(note)
    return found


def _counts(found: Sequence[Attribution], left_out: int) -> dict[str, int]:
    """Count bases, changed sequences that were left out, and rows of each status."""
    statuses = Counter(one.status for one in found)
    return {"bases": sum(len(one.values) for one in found), "left_out": left_out, **statuses}


def left_out_notes(number: int) -> list[str]:
    """Say how many changed sequences were left out."""
    return [f"note: {number:,} changed sequences were left out: their edits make more tokens than the model reads."] * (
        number > 0
    )


def _others(job: AttributionJob, others: Sequence[str | Path]) -> dict[str, LoadedModel]:
    """Open the models whose maps are compared, by name.

    Raises:
        InputError: a row is longer than one of them reads.
        UsageError: two have the same name, one is the model itself or has no such output.
    """
    opened = {Path(other).name: open_model(other, device=job.options.device) for other in others}
    if len(opened) < len(others):
        raise UsageError("two of the other models have the same name; rename a folder.")
    for one in opened.values():
        if one.fingerprint() == job.loaded.fingerprint():
            raise UsageError("another model is this model itself; compare different ones (other seeds).")
    explainers = [job.explainer, *(Explainer(one.network, job.options) for one in opened.values())]
    for record in job.records():  # what is too long for one stops here, not hours later
        for explainer in explainers:
            explainer.reads(record)
    return opened


def _cost(job: AttributionJob, others: int) -> Cost | None:
    """Estimate what maps and page take; None for short runs."""
    explainer, check = job.explainer, job.options.check
    page = None if not check else lambda rows, *size: passes_of_tests(explainer, others, min(check, rows), *size)
    cost = estimate(explainer, job.records(), page)
    return cost and replace(cost, seconds=cost.seconds / world_size())


def _join(
    job: AttributionJob, sink: ZarrSink, others: Mapping[str, Network], sites: str | Path | None,
    parts: Sequence[Path], target: Path,
) -> None:  # fmt: skip
    """Make everything that the folder holds."""
    target.mkdir()
    sink.join(parts, target / ARRAYS)
    maps = Maps(target, intervals=job.intervals)
    names = ("index", "name", *(Place._fields if job.intervals else ()), "status")
    numbers = np.stack([maps.column(name) for name in NUMBERS], axis=1)
    table = ColumnChunk({name: maps.column(name).tolist() for name in names}, numbers, NUMBERS)
    CsvSink(delimiter="\t").write(table, target / TABLE)
    write_seqlets(maps, target / SEQLETS)
    contigs = None if job.genome is None else job.genome.contigs
    write_track(maps, target, contigs, job.options.track)
    if job.options.check:
        write_page(job, maps, target, others=others, sites=sites)
