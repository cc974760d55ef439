"""``longstrand variants``: what variants do to what a model says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

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
    show_result,
)
from longstrand.variants.options import VariantOptions

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
        help="Model: folder, name of a shipped model or hub id (or --model). Variants: VCF, BCF, '-' (a VCF from the "
        "standard input), a table with chrom, pos, ref, alt, or a text such as chr1:12345:A:G.",
        show_default=False,
    ),
]
LookUpOption = Annotated[Path | None, typer.Option(help="VCF that holds the rsIDs and HGVS names among the variants.")]


@app.command()
@options_of(VariantOptions)
def score(
    arguments: WordsArgument,
    output: OutputOption,
    model: ModelOption = None,
    genome: GenomeOption = None,
    look_up: LookUpOption = None,
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

    chosen, source = model_first(model, arguments, "MODEL VARIANTS")
    variants: str | list[str] = source
    if source != "-" and not Path(source).expanduser().exists() and (":" in source or look_up is not None):
        variants = source.split()
    result = score_variants_file(
        chosen, variants, output, genome=genome, look_up=look_up, overwrite=overwrite,
        progress=lambda total: progress_bar(lambda: total, "variants", quiet=quiet), **given(options),
    )  # fmt: skip
    if result.num_rows is None:
        typer.echo(f"the parts of this process of {result.output} are done; the last rank joins them.")
        return
    rate = result.computed / max(result.seconds, 1e-9)
    line = f"wrote {result.num_rows:,} records to {result.output} ({result.seconds:.1f} s, {rate:,.1f} variants/s)"
    if result.already_finished:
        line = f"{result.output} is already complete ({result.num_rows:,} records); --overwrite makes it anew."
    summary = asdict(result) | {"output": str(result.output), "variants_per_second": round(rate, 2)}
    show_result(summary, [line], [] if json else result.notes, as_json=json, quiet=quiet)


@app.callback()
def variants() -> None:
    """Score variants with any model."""
