"""``longstrand variants``: what variants do to what a model says."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstrand.cli.options import (
    GenomeOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    QuietOption,
    given,
    model_first,
    new_app,
    options_of,
    progress_bar,
    show_job,
)  # fmt: skip
from longstrand.runtime import write_atomically
from longstrand.variants.options import VariantOptions

if TYPE_CHECKING:
    import polars as pl

    from longstrand.report.sections import Report


app = new_app(no_args_is_help=True, help="Score variants with any model.")

OutputOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="File to write: .vcf.gz (with index), .vcf, .bcf, .tsv, .csv (also .gz), .parquet.",
        show_default=False,
    ),
]  # fmt: skip
WordsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL VARIANTS",
        help="Model: folder, name of a shipped model or hub id (or --model). Variants: VCF, BCF, '-' (the "
        "standard input), a table with chrom, pos, ref, alt, or a text such as chr1:12345:A:G.",
        show_default=False,
    ),
]
WRITTEN = re.compile(r"\S+:|rs\d+$|[^\s-]+-\d+-")
"""How a variant begins that is no path."""
ONE = re.compile(r"\S+\s+\w+>\w+")
"""A variant that is written with a space."""
LookUpOption = Annotated[Path | None, typer.Option(help="VCF that holds the rsIDs and HGVS names among the variants.")]


@app.command()
@options_of(VariantOptions)
def score(
    arguments: WordsArgument,
    output: OutputOption,
    model: ModelOption = None,
    genome: GenomeOption = None,
    look_up: LookUpOption = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder for a page: spread by kind, strongest variants, counts.")
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    **options: Any,
) -> None:
    """Score every variant of a file; every record comes out, in order, with its scores or with why it has none.

    Always alternate minus reference; the header says for each score what it is and its sign. The same command continues
    after an interruption. Several processes (torchrun) share the work.
    """
    from longstrand.variants.jobs import score_variants_file
    from longstrand.variants.page import make_page

    chosen, source = model_first(model, arguments, "MODEL VARIANTS")
    variants: str | list[str] = source
    if source != "-" and not Path(source).expanduser().exists() and (look_up or WRITTEN.match(source)):
        variants = [source] if ONE.fullmatch(source) else source.split()
    pages: list[Report] = []
    page = None if report is None else lambda job, scored: pages.append(make_page(job, scored))
    result = score_variants_file(
        chosen, variants, output, genome=genome, look_up=look_up, overwrite=overwrite, report=page,
        progress=lambda total: progress_bar("variants", lambda: total, "variants", quiet=quiet), **given(options),
    )  # fmt: skip
    if report is not None and pages:
        from longstrand.report.page import write_report

        write_report(report, pages[0], files=sorted(output.parent.glob(f"{glob.escape(output.name)}*")))
    show_job(result, "records", "variants", as_json=json, quiet=quiet)


@app.command()
@options_of(VariantOptions, leave_out=["mismatch", "prefix", "split", "background", "sample", "unphased", "missing"])
def calibrate(
    model: Annotated[str, typer.Argument(help="Model: folder, name of a shipped model or hub id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Background to write (.parquet).")],
    genome: GenomeOption = None,
    draw: Annotated[
        str, typer.Option(help="random, common (of a VCF with INFO AF), matched (contexts of a VCF).")
    ] = "random",
    variants: Annotated[Path | None, typer.Option(help="VCF of common and matched.")] = None,
    num: Annotated[int, typer.Option(min=1, help="Variants to draw, at most.")] = 10_000,
    min_frequency: Annotated[float, typer.Option(help="common: smallest INFO AF.")] = 0.01,
    seed: Annotated[int, typer.Option(help="The same seed draws the same variants.")] = 0,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    **options: Any,
) -> None:
    """Make a background, of which `variants score --background` tells the percentile of each score.

    Score the file with the same options; a background of another model or of other options is refused.
    """
    from longstrand.variants.calibrate import calibrate as run

    result = run(
        model, output, genome=genome, draw=draw, variants=variants, num=num, min_frequency=min_frequency, seed=seed,
        progress=lambda total: progress_bar("variants", lambda: total, "variants", quiet=quiet), overwrite=overwrite,
        **given(options),
    )  # fmt: skip
    show_job(result, "records", "variants", as_json=json, quiet=quiet)


@app.command()
def evaluate(
    scored: Annotated[Path, typer.Argument(help="Table that 'variants score' wrote from a table with labels.")],
    label: Annotated[str, typer.Option(help="Column with the labels.")],
    positive: Annotated[str, typer.Option(help="Label of variants with an effect; others are without.")] = "1",
    scores: Annotated[str, typer.Option(help="Columns of scores, with commas.")] = "llr",
    absolute: Annotated[bool, typer.Option(help="Rank by size, whatever the sign (complex traits).")] = False,
    consequence: Annotated[str | None, typer.Option(help="Column to measure within, too.")] = None,
    genome: GenomeOption = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Table to write (.tsv).")] = None,
    json: JsonOption = False,
) -> None:
    """Measure how well scores rank labelled variants, by chromosome and consequence, beside trivial baselines.

    The sign is that of each score's definition, never chosen on the labels. Intervals are 95 % of a bootstrap.
    """
    from longstrand.variants.measure import evaluate_variants

    table = evaluate_variants(
        scored, label=label, positive=positive, scores=scores.split(","), absolute=absolute, genome=genome,
        consequence=consequence,
    )  # fmt: skip
    _show_table(table, output, as_json=json)


@app.command()
def perplexity(
    arguments: WordsArgument, model: ModelOption = None, genome: GenomeOption = None,
    window: Annotated[int | None, typer.Option(min=1, help="Bases; by default what the model reads.")] = None,
    num: Annotated[int | None, typer.Option(min=1, help="At most so many SNVs, drawn by the seed.")] = None,
    seed: Annotated[int, typer.Option(help="Draws SNVs and people.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Table to write (.tsv).")] = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Compute the perplexity at the SNVs of the people of a phased VCF, by frequency and population.

    Beside it: the same tokens on the reference's background, and the other allele on the people's.
    """
    from longstrand.variants.measure import snp_perplexity

    chosen, source = model_first(model, arguments, "MODEL VARIANTS")
    _show_table(snp_perplexity(chosen, source, genome=genome, window=window, num=num, seed=seed), output, as_json=json)


def _show_table(table: pl.DataFrame, output: Path | None, *, as_json: bool) -> None:
    if output is not None:
        write_atomically(output, table.write_csv(separator="\t", float_precision=6))
    typer.echo(table.write_json() if as_json else table.write_csv(separator="\t", float_precision=4).rstrip())
