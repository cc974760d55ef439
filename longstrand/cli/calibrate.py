"""``longstrand calibrate``: probabilities that mean what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.options import DeviceOption, GenomeOption, JsonOption, new_app

app = new_app()


@app.command()
def calibrate(
    model: Annotated[
        str, typer.Argument(help="Folder of a fine-tuned model or its run; several with commas are an ensemble.")
    ],
    labelled: Annotated[Path, typer.Argument(help="Validation rows: a table (sequence,label), or intervals.")],
    genome: GenomeOption = None,
    window: Annotated[int | None, typer.Option(help="Bases around the middle of each interval.")] = None,
    sequence_column: Annotated[str, typer.Option(help="Column with the sequences.")] = "sequence",
    label_column: Annotated[
        str | None, typer.Option("--label-column", "--label", help="Column(s) with the labels, with commas.")
    ] = None,
    pair_column: Annotated[str | None, typer.Option(help="Column with second sequences, for models of pairs.")] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit the temperature of a model on validation rows; predict and evaluate obey it from then on.

    It is written into longstrand.json of the model's folder (reading.temperature). Of an ensemble it is only printed:
    give it to predict as --temperature.
    """
    from longstrand.training.evaluate import calibrate as run

    places: dict[str, Any] = {
        "genome": genome, "window": window, "sequence_column": sequence_column,
        "label_column": label_column, "pair_column": pair_column,
    }  # fmt: skip
    found = run(model, labelled, device=device or "auto", notice=lambda line: typer.echo(line, err=True), **places)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    loss, ece = found["loss"], found["ece"]
    typer.echo(
        f"temperature {found['temperature']:.3f} ({found['num_rows']:,} rows): loss {loss['before']:.4f} to "
        f"{loss['after']:.4f}, expected calibration error {ece['before']:.4f} to {ece['after']:.4f}"
    )
    where = found["folder"]
    typer.echo(f"written to {where}" if where else f"give it to predict: --temperature {found['temperature']:.4f}")
