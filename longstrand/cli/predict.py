"""``longstrand predict`` and ``embed``: a model on sequences, intervals or whole contigs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.options import (
    GenomeOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    QuietOption,
    ReportOption,
    WordsArgument,
    given,
    model_first,
    new_app,
    options_of,
    progress_bar,
    show_job,
)
from longstrand.errors import UsageError, one_of
from longstrand.inference.options import FileOptions, TrackOptions

app, embed_app = new_app(), new_app()

OutputOption = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="File to write: .csv, .tsv (also .gz), .parquet, or .zarr (arrays). Of contigs or regions: a folder of "
        "BigWigs, or .bw, .bedgraph, .zarr.",
        show_default=False,
    ),
]
SPELLINGS = {"columns": "--outputs,--column,--columns"}


PerOption = Annotated[str | None, typer.Option(help="Models that label bases: one line a base, or a token.")]
ValuesOption = Annotated[
    str | None,
    typer.Option(help="probabilities (the default where there are classes) or logits (the model's raw numbers)."),
]


class JobOptions(FileOptions, TrackOptions):
    """The options of both kinds of job, for the command line."""


@app.command()
@options_of(JobOptions, leave_out=["output", "pooling", "layer", "layers", "poolings", "pack"], names=SPELLINGS)
def predict(
    arguments: WordsArgument,
    output: OutputOption,
    model: ModelOption = None,
    genome: GenomeOption = None,
    values: ValuesOption = None,
    per: PerOption = None,
    overwrite: OverwriteOption = False,
    report: ReportOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    **options: Any,
) -> None:
    """Apply a fine-tuned model to sequences or intervals, one result for every row in order, or along a genome.

    Input is read as in training, unless options say otherwise. The same command continues after an interruption. With
    --strand both, the logits of the two strands are averaged (per-base ones are flipped back first). An empty sequence
    gets missing values. Several processes (torchrun) share the work. --contigs all or --regions peaks.bed (or
    chr1:1001-2000, from 1, ends included) write tracks along the genome that is the input: all outputs at once, into a
    folder of BigWigs with a page.
    """
    if values is not None:
        options["output"] = one_of(values, ("probabilities", "logits"), "--values")
    if per is not None:
        options["pooling"] = {"base": "bases", "token": "tokens"}[one_of(per, ("base", "token"), "--per")]
    run_job(model, arguments, output, genome, options, overwrite=overwrite, report=report, as_json=json, quiet=quiet)


@embed_app.command()
@options_of(JobOptions, leave_out=["output", "layers", "poolings", "pack"], names=SPELLINGS)
def embed(
    arguments: WordsArgument,
    output: OutputOption,
    model: ModelOption = None,
    genome: GenomeOption = None,
    overwrite: OverwriteOption = False,
    report: ReportOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    **options: Any,
) -> None:
    """Turn sequences, intervals or contigs into vectors, with a pre-trained or fine-tuned model; every row, in order.

    Tables have columns e0, e1, ... Vectors per base or token go to .zarr: 'values', and 'offsets', which says where
    each row begins. The same command continues after an interruption. An empty sequence gets missing values.
    """
    pooling = one_of(options["pooling"] or "mean", ("mean", "mean_all", "max", "cls", "bases", "tokens"), "--pooling")
    if pooling in ("bases", "tokens") and not str(output).endswith(".zarr"):
        raise UsageError(f"--pooling {pooling} gives many vectors a row; write them to a name that ends in .zarr.")
    options["output"] = "embeddings"
    run_job(model, arguments, output, genome, options, overwrite=overwrite, report=report, as_json=json, quiet=quiet)


def run_job(
    model: str | None,
    words: list[str],
    output: Path,
    genome: Path | None,
    options: dict[str, Any],
    *,
    overwrite: bool,
    report: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Do a job, or what is left of it, and print the summary.

    Args:
        model: of the option ``--model``.
        words: the arguments: model, if it is not an option, and input.
        output: decides with ``--contigs`` and ``--regions`` whether these are tracks.
        genome: of intervals.
        options: fields of `JobOptions`; None is not given.
        overwrite: replace an output that was made otherwise.
        report: folder for a page, or None.
        as_json: print the summary as JSON.
        quiet: print notes alone.

    Raises:
        LongstrandError: whatever is wrong with files or options.
    """
    source_model, source = model_first(model, words, "MODEL INPUT")
    verb = "embed" if options.get("output") == "embeddings" else "predict"
    from longstrand.inference.writers import track_ending

    chosen = given(options)
    track = bool({"contigs", "regions"} & set(chosen)) or track_ending(output) not in (None, ".zarr")
    for kind, fields in (("tracks of whole contigs", TrackOptions), ("sequences and intervals", FileOptions)):
        other = set(JobOptions.model_fields) - set(fields.model_fields) if track == (fields is TrackOptions) else set()
        unused = sorted(other & set(chosen))
        if unused:
            shown = ", ".join("--outputs" if name == "columns" else f"--{name.replace('_', '-')}" for name in unused)
            hint = "" if track else "; add --contigs all"
            raise UsageError(f"{shown} is not for {kind}{hint}.")
    if track and genome is not None:
        raise UsageError("a track reads the contigs of its input; leave --genome away and give the FASTA file itself.")
    if track and report is not None:
        raise UsageError("--report is not for tracks: a folder as output holds its report (--output tracks).")
    from longstrand.data.rows import count_rows
    from longstrand.inference.jobs import predict_file

    if track:
        from longstrand.tracks.jobs import predict_tracks

        names = {"contigs": "chroms", "columns": "outputs"}
        asked = {names.get(name, name): value for name, value in chosen.items()}
        with progress_bar(verb, lambda: None, "bases", quiet=quiet) as advance:
            result = predict_tracks(source_model, source, output, overwrite=overwrite, advance=advance, **asked)
    else:
        with progress_bar(verb, lambda: count_rows(Path(source)), "sequences", quiet=quiet) as advance:
            result = predict_file(
                source_model, source, output, genome=genome, overwrite=overwrite, advance=advance, **chosen
            )
    if report is not None and result.num_rows is not None:
        from longstrand.report.outcomes import predictions_page

        what = "Vectors" if verb == "embed" else "Predictions"
        about = {"model": source_model, "input": source, "genome": genome, "options": chosen}
        predictions_page(report, result.output, title=f"{what} of {Path(source).name}", notes=result.notes, about=about)
    unit, counted = ("contigs", None) if track else ("rows", "sequences")
    show_job(result, unit, counted, as_json=as_json, quiet=quiet)
