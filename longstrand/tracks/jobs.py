"""Predict contigs or regions of a genome into tracks: one file, or a folder of BigWigs with what browsers need."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longstrand.config import build
from longstrand.errors import UsageError
from longstrand.inference.contigs import ContigJob, Written, one_file, predict_contigs
from longstrand.inference.jobs import JobResult, layout_of, with_default_output
from longstrand.inference.loaded import LoadedModel, Model, as_trained, obey, open_model
from longstrand.inference.options import TrackOptions
from longstrand.inference.predict import head_of
from longstrand.inference.sequences import open_genome
from longstrand.inference.writers import track_ending, track_file
from longstrand.runtime import Advance, check_output, read_json, torch_threads
from longstrand.tracks.folder import BIGWIG, FACTS, write_folder

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome

NO_FOLDER = (".csv", ".tsv", ".gz", ".parquet", ".wig", ".bed", ".txt", ".gff3", ".h5")
"""Endings of an output that is meant to be a file, and of no format of tracks."""
SEAM = 0.3
"""Neighbouring windows that differ by more than this share of a track's spread are said to."""


def predict_tracks(
    model: Model,
    genome: Genome | str | Path,
    output: str | Path,
    /,
    *,
    chroms: str | Sequence[str] | None = None,
    regions: str | Path | None = None,
    outputs: str | Sequence[str] | None = None,
    strand: str | None = None,
    overwrite: bool = False,
    advance: Advance = lambda number: None,
    **options: Any,
) -> JobResult:
    """Predict a genome into tracks, all outputs and strands in one pass; repeated after an interruption, go on.

    Args:
        model: folder of a checkpoint or run, hub id, name of a shipped model, or a loaded model.
        genome: FASTA.
        output: a folder: one BigWig an output (and strand), ``tracks.json``, files for UCSC and IGV, ``report.html``.
            Or one track: a name that ends in .bedgraph, .bw (one output) or .zarr (all).
        chroms: contigs, by default all.
        regions: intervals to which the tracks are limited: a file (BED, or a table chrom,start,end), or text such as
            ``chr1:1001-2000`` (from 1, both ends included; commas between several).
        outputs: which, by default all.
        strand: ``+``, ``-``, ``both`` (averaged) or ``separate`` (a track for each).
        overwrite: replace an output that was made otherwise.
        advance: called with bases that are done.
        **options: of `longstrand.inference.options.TrackOptions`, for example ``blend="hann", bin_size=100``.

    Returns:
        What was done; its notes name seams between windows and stretches without a value.

    Raises:
        ConfigError: an option is unknown or wrong.
        InputError: a file is missing or damaged, a contig or region is not in the genome, the output cannot be written.
        UsageError: options, model and format contradict each other.
        ResumeError: an output of other options is there.
    """
    given = {
        "contigs": chroms,
        "regions": None if regions is None else str(regions),
        "columns": outputs,
        "strand": strand,
    }
    target = Path(output).expanduser()
    wanted = build(
        TrackOptions, options | {name: value for name, value in given.items() if value is not None}, "options"
    )
    in_folder = track_ending(target) is None and target.suffix.lower() not in NO_FOLDER
    track_file(Path(f"x{BIGWIG}") if in_folder else target)
    opened = open_genome(genome)
    check_output(target, [opened.path, wanted.regions, model])
    if not in_folder and wanted.threshold is not None:
        raise UsageError("threshold makes a file beside the tracks; give a folder as output.")
    loaded = open_model(model, "encoder" if wanted.output == "embeddings" else None, device=wanted.device)
    used, notes = obey(wanted, loaded, has_pairs=False)
    notes += as_trained(wanted, used)
    job = open_job(loaded, opened, used)
    write = partial(write_folder, loaded=loaded) if in_folder else one_file(job, target)
    if used.window is None and not job.streams:
        notes.append(
            f"note: read in windows of {job.grid.window:,} bases (--window), one every {job.grid.step:,} (--step)."
        )
    for name in ("window", "step"):
        asked, found = getattr(used, name), getattr(job.grid, name)
        if asked is not None and asked != found and not job.streams:
            notes.append(f"note: {name} {asked:,} was rounded to {found:,}, whole bins and tokens of the model.")
    done = run_job(job, target, write, loaded=loaded, overwrite=overwrite, advance=advance)
    if done.num_rows is not None and wanted.regions is None:
        total = sum(opened.contigs[name] for name in job.contigs())
        if skipped := total - done.counts["bases"]:
            notes.append(f"note: {skipped:,} bases in long runs of N were not read; they have no value.")
    if done.num_rows is not None and in_folder:
        notes += seam_notes(read_json(target / FACTS)["tracks"])
    return replace(done, notes=tuple(notes))


def run_job(
    job: ContigJob,
    target: Path,
    write: Callable[[Written, Path], None],
    *,
    loaded: LoadedModel,
    overwrite: bool,
    advance: Advance,
) -> JobResult:
    """Read what a job has left to read, write its output, and say what was done.

    Args:
        job: model, genome and settings.
        target: file or folder.
        write: makes it of the finished bins.
        loaded: the model, for its identity.
        overwrite: replace an output of other settings.
        advance: called with bases that are done.

    Raises:
        LongstrandError: as `longstrand.inference.contigs.predict_contigs`.
    """
    started, read, existed = time.perf_counter(), 0, target.exists() and not overwrite

    def count(number: int) -> None:
        nonlocal read
        read += number
        advance(number)

    identity = {"model": loaded.fingerprint(), "tokenizer": loaded.tokenizer.fingerprint, "unit": job.unit}
    with torch_threads(job.options.threads or loaded.threads):
        done = predict_contigs(job, target, write, identity=identity, overwrite=overwrite, advance=count)
    number, counts = (len(job.contigs()), dict(done.counts)) if done else (None, {})
    return JobResult(target, number, counts, (), read, time.perf_counter() - started, existed and not read)


def open_job(loaded: LoadedModel, genome: Genome, options: TrackOptions) -> ContigJob:
    """Name the outputs of a model, and choose the kind of numbers if it is open.

    Raises:
        UsageError: the model has no such output.
    """
    names = tuple(f"e{number}" for number in range(loaded.network.config.hidden_size))
    if options.output != "embeddings":
        options = with_default_output(options, head_of(loaded.network))
        names = layout_of(head_of(loaded.network), options.output, "sequence").value_names
    return ContigJob(loaded.network, loaded.tokenizer, genome, options=options, names=names)


def seam_notes(tracks: Sequence[dict[str, Any]]) -> list[str]:
    """Say which tracks have seams: neighbouring windows contradict each other where they overlap."""
    worst = [(track["seam"], track["name"]) for track in tracks if (track["seam"] or 0) > SEAM]
    if not worst:
        return []
    score, name = max(worst)
    return [
        f"note: windows that overlap differ by more than {SEAM:g} of the spread in {len(worst)} of {len(tracks)} "
        f"tracks (most in {name}: {score:.2f}), so borders of windows show; read longer windows, a "
        "smaller --step, or blend (--blend hann)."
    ]
