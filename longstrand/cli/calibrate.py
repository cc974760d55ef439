"""``longstrand calibrate``: probabilities that mean what they say."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.options import DeviceOption, GenomeOption, JsonOption, given, new_app, options_of
from longstrand.inference.options import RowSource

app = new_app()


@app.command()
@options_of(RowSource, leave_out=["genome", "group_column"], names={"label_column": "--label-column,--label"})
def calibrate(
    model: Annotated[
        str, typer.Argument(help="Folder of a fine-tuned model or its run; several with commas are an ensemble.")
    ],
    labelled: Annotated[Path, typer.Argument(help="Validation rows: a table (sequence,label), or intervals.")],
    genome: GenomeOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    **options: Any,
) -> None:
    """Fit the temperature of a model on validation rows; predict and evaluate obey it from then on.

    It is written into longstrand.json of the model's folder (reading.temperature). Of an ensemble it is only printed:
    give it to predict as --temperature.
    """
    from longstrand.training.evaluate import calibrate as run

    say = partial(typer.echo, err=True)
    found = run(model, labelled, genome=genome, device=device or "auto", notice=say, **given(options))
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
