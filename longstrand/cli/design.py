"""``longstrand design``: sequences that do what a model says they do, with what speaks against believing it."""

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
    WordsArgument,
    given,
    model_first,
    new_app,
    options_of,
    progress_bar,
    show_result,
)
from longstrand.designs.options import DesignOptions

app = new_app()


@app.command()
@options_of(DesignOptions, names={"motifs": "--motif"})
def design(
    arguments: WordsArgument,
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", show_default=False)],
    model: ModelOption = None,
    genome: GenomeOption = None,
    check_model: Annotated[
        list[str] | None, typer.Option(help="Another model of the same outputs: does it see the gain? Repeatable.")
    ] = None,
    prior: Annotated[
        str | None, typer.Option(help="Masked LM: strategy lm draws from it; its likelihood of the designs is given.")
    ] = None,
    train: Annotated[Path | None, typer.Option(help="Training rows (FASTA or table): is a design a copy?")] = None,
    fixed_bed: Annotated[
        Path | None, typer.Option(help="BED of bases that stay, on the genome or by the names of the sequences.")
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    **options: Any,
) -> None:
    """Change sequences until a model says what you want of them, within constraints.

    The folder gets designs.tsv, designs.fasta, trace.tsv and a report. The same command continues after an
    interruption.
    """
    from longstrand.data.rows import count_rows
    from longstrand.designs.jobs import design_file

    chosen, source = model_first(model, arguments, "MODEL INPUT")
    with progress_bar("design", lambda: count_rows(Path(source)), "starts", quiet=quiet) as advance:
        result = design_file(
            chosen, source, folder, genome=genome, check_models=check_model or (), prior=prior, train=train,
            fixed_bed=fixed_bed, overwrite=overwrite, advance=advance,
            notice=lambda text: typer.echo(text, err=json or quiet), **given(options),
        )  # fmt: skip
    line = f"wrote the designs of {result.num_rows:,} starts to {result.output} ({result.seconds:.1f} s)"
    if result.already_finished:
        line = f"{result.output} is already complete ({result.num_rows:,} starts); --overwrite makes it anew."
    summary = asdict(result) | {"output": str(result.output)}
    show_result(summary, [line], [] if json else result.notes, as_json=json, quiet=quiet)
