"""``longstrand evaluate``: a trained model and new labelled rows in, metrics with intervals out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.finetune import metrics_line
from longstrand.cli.options import DeviceOption, GenomeOption, JsonOption, StrandOption, given, new_app, options_of
from longstrand.inference.options import RowSource

app = new_app()


@app.command()
@options_of(RowSource, leave_out=["genome"], names={"label_column": "--label-column,--label"})
def evaluate(
    model: Annotated[str, typer.Argument(help="Folder of a fine-tuned model, or of the run that trained it.")],
    labelled: Annotated[Path, typer.Argument(help="Labelled rows: a table (sequence,label), or intervals.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for report.html, report.json and predictions.csv.")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Training rows: k-mer regression and the majority are measured beside.")
    ] = None,
    genome: GenomeOption = None,
    strand: StrandOption = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of the 95 % intervals; 0: none.", min=0)] = 1000,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    **options: Any,
) -> None:
    """Measure a trained model on new labelled rows, read as the model was trained to read them.

    Rows with a class that the model does not know are refused.
    """
    from longstrand.training.evaluate import calibration_sentence
    from longstrand.training.evaluate import evaluate as run

    more: dict[str, Any] = {"strand": strand, "device": device or "auto", "resamples": resamples}
    notice = {"notice": lambda sentence: typer.echo(sentence, err=True)}
    report = run(model, labelled, train=train, output=output, genome=genome, **more, **notice, **given(options))
    if as_json:
        typer.echo(json.dumps(report, indent=2, default=str))
        return
    typer.echo(f"{report['rows']['num_rows']:,} rows: {metrics_line(report['test'])}")
    for sentence in calibration_sentence(report["calibration"]):
        typer.echo(sentence)
    for kind, groups in report["groups"].items():
        for name, found in groups.items():
            typer.echo(f"  {kind} {name} ({found['num_rows']:,} rows): {metrics_line(found)}")
    for name, found in report.get("baselines", {}).items():
        typer.echo(f"  {name}: {metrics_line(found['test'])}")
    for warning in report["warnings"]:
        typer.echo(f"mind: {warning}")
    if output is not None:
        typer.echo(f"report: {output / 'report.html'}")
