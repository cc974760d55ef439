"""What `longstrand predict` and `longstrand embed` have in common: options, model and input files, the summary."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstrand.errors import UsageError

if TYPE_CHECKING:
    from longstrand.data.rows import Record
    from longstrand.inference.jobs import Layout
    from longstrand.inference.predict import PredictOptions
    from longstrand.inference.resumable import Counts, Finished

SMALL_FILE = 1 << 26
SMALL_INPUT = 1 << 20

ModelArgument = Annotated[
    Path, typer.Argument(help="Folder of a model, or of the run that trained it.", show_default=False)
]
InputArgument = Annotated[
    Path,
    typer.Argument(
        help="Sequences: FASTA, or a CSV, TSV or Parquet table with a sequence column. "
        "Or intervals: BED, or a table with chrom,start,end[,strand]; these need --fasta. Plain or gzip.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="File to write: .csv, .tsv (also .gz), .parquet, or .zarr (arrays).", show_default=False
    ),
]
FastaOption = Annotated[Path | None, typer.Option(help="Genome that the intervals lie on (FASTA).")]
WindowOption = Annotated[
    int | None,
    typer.Option(help="Read this many bases around the middle of each interval; of contigs, so many at a time."),
]
SequenceOption = Annotated[str, typer.Option(help="Column with the sequences.")]
PairOption = Annotated[str | None, typer.Option(help="Column with second sequences, for models of pairs.")]
NameOption = Annotated[
    str | None, typer.Option(help="Column with row names; by default 'name' or 'id' if there is one.")
]
StrandOption = Annotated[
    str, typer.Option(help="Read sequences as given (+), their reverse complement (-), or average the two (both).")
]
TruncateOption = Annotated[
    bool, typer.Option("--truncate", help="Cut sequences that are too long for the model, instead of refusing them.")
]
ExactOption = Annotated[
    bool,
    typer.Option(
        "--exact-text",
        help="Give the text to the tokenizer as it is, lower case and all; by default it is put into upper case, and "
        "letters that the model does not know are read as N.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps.")]
PrecisionOption = Annotated[str, typer.Option(help="fp32, or bf16 (faster on GPUs, two to three digits).")]
BatchOption = Annotated[int, typer.Option(help="Most tokens in a batch; lower it if memory runs out.", min=1)]
PartOption = Annotated[int | None, typer.Option(help="Rows between two safe points of the output.", min=1)]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an output of other settings.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


@dataclass(frozen=True)
class Job:
    """The options that both commands share."""

    model: Path
    input: Path
    output: Path
    fasta: Path | None = None
    window: int | None = None
    sequence_column: str = "sequence"
    pair_column: str | None = None
    name_column: str | None = None
    device: str = "auto"
    part_rows: int | None = None
    overwrite: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class Loaded:
    """A model ready to predict."""

    folder: Path
    model: Any
    tokenizer: Any


@dataclass
class Tally:
    """What this process has done.

    Attributes:
        show: shows rows that are done, also those of earlier runs.
        rows: how many these are.
        computed: how many this process has computed.
        started: when.
    """

    show: Callable[[int], None] = lambda number: None
    rows: int = 0
    computed: int = 0
    started: float = field(default_factory=time.perf_counter)

    def advance(self, number: int) -> None:
        """Add rows that are done."""
        self.rows += number
        self.show(number)


def load(path: Path, head: str | None, *, is_small: bool) -> Loaded:
    """Load a model with a head and the tokenizer that lies beside it.

    Args:
        path: folder of a model or a run.
        head: kind of head, None for the stored one.
        is_small: the input is small, so the tokenizer does without the compiled engine, whose start takes longer than
            the work.
    """
    from longstrand.models.checkpoint import load_network
    from longstrand.runtime import model_folder
    from longstrand.tokenization.hub import load_tokenizer

    folder = model_folder(path)
    tokenizer = load_tokenizer(folder, engine="library" if is_small else "own")
    return Loaded(folder, load_network(folder, head, tokenizer=tokenizer), tokenizer)


def is_small(path: Path, fasta: Path | None) -> bool:
    """Say whether an input is a small file of sequences (intervals may stand for many bases)."""
    return fasta is None and path.is_file() and path.stat().st_size < SMALL_INPUT


def run(job: Job, loaded: Loaded, settings: PredictOptions, layout: Layout) -> None:
    """Do the job, or what is left of it, and print the summary.

    Raises:
        LongstrandError: whatever is wrong with the files.
    """
    from dataclasses import asdict

    from longstrand.data.rows import Columns, count_rows, has_intervals, read_records
    from longstrand.inference.jobs import part_sizes, write_predictions
    from longstrand.inference.predict import predict
    from longstrand.inference.resumable import ResumableOutput
    from longstrand.inference.writers import sink_for
    from longstrand.runtime import resolve_device

    columns = Columns(job.sequence_column, job.pair_column, job.name_column)
    sink = sink_for(job.output)
    genome = _open_genome(job.fasta)
    flank = max((abs(shift) for _, shift in settings.views), default=0)
    records = read_records(job.input, columns=columns, genome=genome, window=job.window, flank=flank)
    layout = _with_places(layout, has_intervals(job.input, columns))
    identity = {
        "model": fingerprint_model(loaded.folder),
        "tokenizer": loaded.tokenizer.fingerprint,
        "input": fingerprint_input(job.input),
        "genome": None if genome is None else genome.fingerprint,
        "window": job.window,
        **{f"{name}_column": value for name, value in asdict(columns).items()},
        **{name: value for name, value in asdict(settings).items() if name != "batch_tokens"},
        "columns": len(layout.value_names),
        "part_size": list(part_sizes(layout, job.part_rows)),
    }
    device = resolve_device(job.device)

    tally = Tally()

    def predictor(rows: Iterator[Record]) -> Iterator[Any]:
        for prediction in predict(loaded.model, rows, tokenizer=loaded.tokenizer, settings=settings, device=device):
            tally.computed += 1
            yield prediction

    with ResumableOutput.open(job.output, identity, suffix=sink.suffix, overwrite=job.overwrite) as parts:
        finished = None if job.overwrite else parts.finished()
        if finished is None:
            with _progress(lambda: count_rows(job.input), tally):
                finished = write_predictions(
                    records, predictor, parts, sink, layout, part_rows=job.part_rows, advance=tally.advance
                )
    _report(job, finished, tally, exact_text=settings.exact_text)


def fingerprint_model(folder: Path) -> str:
    """Identify the weights: by the hashes in longstrand.json (loading has checked them), else by the files."""
    from longstrand.runtime import fingerprint_bytes

    names = ["config.json", "longstrand.json"]
    texts = [(folder / name).read_bytes() for name in names if (folder / name).is_file()]
    record = folder / "longstrand.json"
    if not record.is_file() or not json.loads(record.read_text()).get("files"):
        weights = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
        texts += [fingerprint_input(path).encode() for path in weights]
    return fingerprint_bytes(b"\n".join(texts))


def fingerprint_input(path: Path) -> str:
    """Identify a file: by its content up to 64 MiB, a larger one by size, time of change, first and last MiB."""
    from longstrand.runtime import fingerprint_bytes, fingerprint_file

    about = path.stat()
    if about.st_size <= SMALL_FILE:
        return fingerprint_file(path)
    with open(path, "rb") as file:
        first = file.read(1 << 20)
        file.seek(-(1 << 20), 2)
        last = file.read()
    return fingerprint_bytes(first + last + f"{about.st_size} {about.st_mtime_ns}".encode())


def _open_genome(path: Path | None) -> Any:
    if path is None:
        return None
    from longstrand.genome.fasta import Genome

    return Genome(path)


def _with_places(layout: Layout, intervals: bool) -> Layout:
    from dataclasses import replace

    return replace(layout, with_intervals=intervals)


@contextmanager
def _progress(count: Callable[[], int | None], tally: Tally) -> Iterator[None]:
    """Show a bar on a terminal; counting the rows and drawing cost nothing elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    from longstrand.runtime import progress

    with progress("predict", total=count(), unit="sequences") as bar:
        tally.show = bar
        yield


def _report(job: Job, finished: Finished | None, tally: Tally, *, exact_text: bool) -> None:
    from longstrand.runtime import rank, world_size

    seconds = time.perf_counter() - tally.started
    if finished is None:
        typer.echo(f"rank {rank()} of {world_size()}: its parts of {job.output} are done; the last rank joins them.")
        return
    summary = {
        "output": str(finished.path),
        "rows": finished.num_rows,
        **finished.counts,
        "exact_text": exact_text,
        "already_finished": tally.rows == 0,
        "seconds": round(seconds, 3),
        "computed": tally.computed,
        "sequences_per_second": round(tally.computed / seconds, 2) if seconds > 0 else None,
    }
    if job.as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    if tally.rows == 0:
        typer.echo(f"{finished.path} is already complete ({finished.num_rows:,} rows); --overwrite makes it anew.")
    else:
        typer.echo(
            f"wrote {finished.num_rows:,} rows to {finished.path} ({seconds:.1f} s, {tally.computed / seconds:,.1f} "
            "sequences/s)"
        )
    for line in notices(finished.counts, exact_text=exact_text):
        typer.echo(line)


def notices(counts: Counts, *, exact_text: bool = False) -> list[str]:
    """Say what a user should know before trusting the numbers."""
    lines = []
    if counts.get("truncated"):
        lines.append(f"note: {counts['truncated']:,} sequences were cut to what the model can read.")
    if exact_text and (counts.get("lower_case_letters") or counts.get("unknown_letters")):
        lines.append(
            f"note: {counts['lower_case_letters']:,} lower-case letters and {counts['unknown_letters']:,} characters "
            "other than A, C, G and T went to the tokenizer as they are."
        )
    elif counts.get("lower_case_letters"):
        lines.append(
            f"note: {counts['lower_case_letters']:,} lower-case letters were read as upper case (--exact-text keeps "
            "them)."
        )
    if counts.get("unknown_letters") and not exact_text:
        lines.append(
            f"note: {counts['unknown_letters']:,} unknown letters in {counts['with_unknown_letters']:,} sequences "
            "were read as N."
        )
    if counts.get("empty"):
        lines.append(
            f"note: {counts['empty']:,} sequences are empty or too short for the tokenizer; their values are missing."
        )
    return lines


def check_choice(value: str, choices: tuple[str, ...], option: str) -> str:
    """Check a word given on the command line.

    Raises:
        UsageError: naming the nearest choice and all choices.
    """
    from longstrand.errors import nearest

    if value not in choices:
        raise UsageError(f"{option} '{value}' is unknown{nearest(value, choices)}; use {', '.join(choices)}.")
    return value
