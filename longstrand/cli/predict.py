"""``longstrand predict``: apply a fine-tuned model to sequences, intervals or whole contigs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from longstrand.cli.contigs import SPELLINGS, JobOptions, OutputOption, WordsArgument, run_job
from longstrand.cli.options import (
    GenomeOption,
    JsonOption,
    ModelOption,
    OverwriteOption,
    QuietOption,
    check_choice,
    new_app,
    options_of,
)

app = new_app()

PerOption = Annotated[str | None, typer.Option(help="Models that label bases: one line a base, or a token.")]
ValuesOption = Annotated[
    str | None,
    typer.Option(help="probabilities (the default where there are classes) or logits (the model's raw numbers)."),
]


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
    json: JsonOption = False,
    quiet: QuietOption = False,
    **options: Any,
) -> None:
    """Apply a fine-tuned model to sequences or intervals, one result for every row in order, or to whole contigs.

    Input is read as in training, unless options say otherwise. The same command continues after an interruption. With
    --strand both, the logits of the two strands are averaged (per-base ones are flipped back first). An empty sequence
    gets missing values. Several processes (torchrun) share the work.
    """
    if values is not None:
        options["output"] = check_choice(values, ("probabilities", "logits"), "--values")
    if per is not None:
        options["pooling"] = {"base": "bases", "token": "tokens"}[check_choice(per, ("base", "token"), "--per")]
    run_job(model, arguments, output, genome, options, overwrite=overwrite, as_json=json, quiet=quiet)
