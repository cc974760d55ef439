"""``longstrand embed``: turn sequences into vectors with any model."""

from __future__ import annotations

from typing import Any

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
from longstrand.errors import UsageError

app = new_app()


@app.command()
@options_of(JobOptions, leave_out=["output", "layers", "poolings", "pack"], names=SPELLINGS)
def embed(
    arguments: WordsArgument,
    output: OutputOption,
    model: ModelOption = None,
    genome: GenomeOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    **options: Any,
) -> None:
    """Turn sequences, intervals or contigs into vectors, with a pre-trained or fine-tuned model; every row, in order.

    Tables have columns e0, e1, ... Vectors per base or token go to .zarr: 'values', and 'offsets', which says where
    each row begins. The same command continues after an interruption. An empty sequence gets missing values.
    """
    pooling = check_choice(
        options["pooling"] or "mean", ("mean", "mean_all", "max", "cls", "bases", "tokens"), "--pooling"
    )
    if pooling in ("bases", "tokens") and not str(output).endswith(".zarr"):
        raise UsageError(f"--pooling {pooling} gives many vectors a row; write them to a name that ends in .zarr.")
    options["output"] = "embeddings"
    run_job(model, arguments, output, genome, options, overwrite=overwrite, as_json=json, quiet=quiet)
