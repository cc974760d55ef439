"""``longstrand embed``: turn sequences into vectors with any model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from longstrand.cli import contigs as tracks
from longstrand.cli import options as common
from longstrand.errors import UsageError

app = typer.Typer(add_completion=False)

LayerOption = Annotated[
    int, typer.Option(help="Layer to take: 0 = embedding output, 1 = first layer, -1 = last layer (normalised).")
]
PoolingOption = Annotated[
    str,
    typer.Option(
        help="One vector a sequence: mean or max over its tokens (without special ones), or cls (the first token). "
        "Or one vector per base: bases; or per token: tokens."
    ),
]


@app.command()
def embed(
    model: common.ModelArgument,
    input: common.InputArgument,
    output: common.OutputOption,
    fasta: common.FastaOption = None,
    window: common.WindowOption = None,
    sequence_column: common.SequenceOption = "sequence",
    name_column: common.NameOption = None,
    layer: LayerOption = -1,
    pooling: PoolingOption = "mean",
    strand: common.StrandOption = "+",
    contigs: tracks.ContigsOption = None,
    bin_size: tracks.BinSizeOption = None,
    reduce: tracks.ReduceOption = None,
    column: tracks.ColumnOption = None,
    step: tracks.StepOption = None,
    gap: tracks.GapOption = None,
    truncate: common.TruncateOption = False,
    exact_text: common.ExactOption = False,
    device: common.DeviceOption = "auto",
    precision: common.PrecisionOption = "fp32",
    batch_tokens: common.BatchOption = 8192,
    part_rows: common.PartOption = None,
    overwrite: common.OverwriteOption = False,
    json: common.JsonOption = False,
) -> None:
    """Turn sequences, intervals or contigs into vectors, with a pre-trained or fine-tuned model; every row, in order.

    Tables have columns e0, e1, ... Vectors per base or token go to .zarr: 'values', and 'offsets', which says where
    each row begins. The same command continues after an interruption. An empty sequence gets missing values.
    """
    common.check_choice(pooling, ("mean", "max", "cls", "bases", "tokens"), "--pooling")
    options = tracks.TrackOptions(contigs, bin_size, reduce, column, step, gap)
    wants_track = options.wanted(output)
    if pooling in ("bases", "tokens") and not str(output).endswith(".zarr"):
        raise UsageError(f"--pooling {pooling} gives many vectors a row; write them to a name that ends in .zarr.")
    from longstrand.inference.jobs import Layout
    from longstrand.inference.predict import PredictOptions

    settings = PredictOptions(
        output="embeddings",
        pooling=pooling,  # type: ignore[arg-type]
        layer=layer,
        strand=strand,  # type: ignore[arg-type]
        batch_tokens=batch_tokens,
        precision=precision,  # type: ignore[arg-type]
        truncate=truncate,
        exact_text=exact_text,
    )
    loaded = common.load(model, "encoder", is_small=common.is_small(input, fasta))
    job = common.Job(
        model, input, output, fasta, window, sequence_column, None, name_column, device, part_rows, overwrite, json
    )
    width = loaded.model.config.hidden_size
    if wants_track:
        tracks.run(job, loaded, settings, options, [f"e{number}" for number in range(width)])
        return
    per: Any = {"bases": "base", "tokens": "token"}.get(pooling, "sequence")
    common.run(job, loaded, settings, Layout(tuple(f"e{number}" for number in range(width)), per=per))
