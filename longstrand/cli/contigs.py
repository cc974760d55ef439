"""Whole contigs for `longstrand predict` and `longstrand embed`: options, the job, the summary."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstrand.cli import options as common
from longstrand.errors import UsageError

if TYPE_CHECKING:
    from longstrand.inference.predict import PredictOptions

ContigsOption = Annotated[
    str | None,
    typer.Option(
        help="Read whole contigs of the FASTA file, 'all' or names separated by commas, and write a track: .bedgraph, "
        ".bw or .zarr. A model with memory streams them; others read overlapping windows.",
    ),
]
BinSizeOption = Annotated[int | None, typer.Option(help="Tracks: bases of a bin; by default 1.", min=1)]
ReduceOption = Annotated[str | None, typer.Option(help="Tracks: a bin gets the mean or the sum of its bases.")]
ColumnOption = Annotated[str | None, typer.Option(help="Tracks: the output to write; .zarr holds all of them.")]
StepOption = Annotated[
    int | None,
    typer.Option(help="Tracks, windows: bases in the middle of a window that are kept (three quarters).", min=1),
]
GapOption = Annotated[
    int | None,
    typer.Option(help="Tracks: runs of so many N are left out and end what memory carries; by default 1000.", min=0),
]


@dataclass(frozen=True)
class TrackOptions:
    """What was given on the command line; None: not given."""

    contigs: str | None = None
    bin_size: int | None = None
    reduce: str | None = None
    column: str | None = None
    step: int | None = None
    gap: int | None = None

    def wanted(self, output: Path) -> bool:
        """Say whether a track is asked for, by --contigs or by the ending of the output.

        Raises:
            UsageError: options of tracks without a track.
        """
        from longstrand.inference.tracks import track_ending

        if self.contigs is not None or track_ending(output) not in (None, ".zarr"):
            return True
        given = [name for name, value in vars(self).items() if value is not None]
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageError(f"{options} is for tracks of whole contigs; add --contigs all.")
        return False


def run(
    job: common.Job, loaded: common.Loaded, settings: PredictOptions, options: TrackOptions, names: list[str]
) -> None:
    """Write a track of whole contigs, or what is left of it, and print the summary.

    Raises:
        LongstrandError: whatever is wrong with files or options.
    """
    from longstrand.genome.fasta import Genome
    from longstrand.inference.contigs import ContigJob, Scan, predict_contigs
    from longstrand.runtime import resolve_device

    if job.fasta is not None:
        raise UsageError("a track reads the contigs of its input; leave --fasta away and give the FASTA file itself.")
    if settings.exact_text:
        raise UsageError("--exact-text is for sequences; contigs are read in upper case.")
    given: dict[str, Any] = {"bin_size": options.bin_size, "reduce": options.reduce, "step": options.step}
    given |= {"shortest_gap": options.gap, "window": job.window, "columns": (options.column,) if options.column else ()}
    scan = Scan(**{name: value for name, value in given.items() if value is not None})
    wanted = [] if options.contigs in (None, "all") else [name for name in options.contigs.split(",") if name]
    work = ContigJob(
        loaded.model, loaded.tokenizer, Genome(job.input), settings=settings, scan=scan, names=names,
        device=resolve_device(job.device),
    )  # fmt: skip
    read, existed = [0], job.output.exists() and not job.overwrite

    def advance(number: int) -> None:
        read[0] += number

    identity = {"model": common.fingerprint_model(loaded.folder), "tokenizer": loaded.tokenizer.fingerprint}
    started = time.perf_counter()
    done = predict_contigs(
        work, job.output, contigs=wanted, identity=identity, overwrite=job.overwrite, advance=advance
    )  # fmt: skip
    _report(job, done, time.perf_counter() - started, was_there=existed and not read[0])


def _report(job: common.Job, done: Any, seconds: float, *, was_there: bool) -> None:
    if done is None:
        typer.echo(f"the parts of this process of {job.output} are done; the last rank joins them.")
        return
    summary = {
        "output": str(done.path), "contigs": done.num_rows, **done.counts, "seconds": round(seconds, 3),
        "already_finished": was_there,
    }  # fmt: skip
    if job.as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    if was_there:
        typer.echo(f"{done.path} is already complete; --overwrite makes it anew.")
    else:
        typer.echo(f"wrote {done.num_rows:,} contigs, {done.counts['bases']:,} bases, to {done.path} ({seconds:.1f} s)")
    skipped = done.counts["bases"] - done.counts["bases_read"]
    if skipped:
        typer.echo(f"note: {skipped:,} bases in long runs of N were not read; they have no value.")
    if done.counts.get("truncated"):
        typer.echo(f"note: {done.counts['truncated']:,} windows had more tokens than the model reads; use --window.")
