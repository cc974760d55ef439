"""``longstrand probe``: which layer of a model knows your labels, read off by a simple probe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from longstrand.cli.options import JsonOption, new_app, run_options

app = new_app()

OPTIONS = {
    "--model": ("model", Path, "Model folder."),
    "--train": ("data.train", Path, "Training table (sequence,label) or intervals."),
    "--valid": ("data.valid", Path, "Validation table; by default a share of the rows."),
    "--test": ("data.test", Path, "Test table; by default a share of the rows."),
    "--output,-o": ("output", Path, "Run folder; embeddings are kept in it."),
    "--layers": ("probe.layers", str, "all, or numbers with commas (0: embeddings, -1: last)."),
    "--trials": ("probe.trials", int, "Trials of the search; 0: only the layer curve."),
    "--init": ("init", str, "pretrained, or random for the control."),
    "--device": ("device", str, "auto, cpu, cuda or mps."),
}


@app.command()
@run_options(OPTIONS, example="probe.folds=3")
def probe(read: Any, as_json: JsonOption = False) -> None:
    """Find the layer, pooling and simple probe that read your labels best off a frozen model.

    Every layer and pooling comes from one pass over the sequences, which is kept; the choice is made on training and
    validation rows, and the winner is measured once on the test rows, beside k-mer regression.
    """
    from longstrand.benchmarks.probe_run import ProbeConfig, run_probe
    from longstrand.benchmarks.probing.probe import where_of

    resolved = read(ProbeConfig, plain={"data": "train"})
    report = run_probe(resolved, notice=lambda sentence: typer.echo(sentence, err=True))
    if report is None:
        return  # another process of the same torchrun does the work
    if as_json:
        typer.echo(json.dumps(report, indent=2, default=str))
        return
    chosen, metric = report["probe"]["chosen"], report["test"]["primary"]
    spread = f" ± {chosen['sd']:.3f}" if chosen["sd"] else ""
    typer.echo(f"chosen: {where_of(chosen)} ({metric} {chosen['mean']:.3f}{spread} without the test rows)")
    lines = {"probe": report["test"], **{name: entry["test"] for name, entry in report["baselines"].items()}}
    for name, evaluation in lines.items():
        entry = evaluation["metrics"][metric]
        value = "undefined" if entry["value"] is None or entry["value"] != entry["value"] else f"{entry['value']:.3f}"
        interval = f" [{entry['low']:.3f}, {entry['high']:.3f}]" if entry.get("low") is not None else ""
        typer.echo(f"test, {name}: {metric} {value}{interval}")
    typer.echo(f"report: {resolved.output / 'page' / 'report.html'}")
