"""``longstrand probe``: which layer of a model knows your labels, read off by a simple probe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.options import new_app

app = new_app()

REQUIRED = {"output": "--output", "model": "--model", "data": "--train", "data.train": "--train"}


@app.command()
def probe(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Any setting, for example probe.folds=3.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; KEY=VALUE and the options below change it.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder.")] = None,
    train: Annotated[Path | None, typer.Option(help="Training table (sequence,label) or intervals.")] = None,
    valid: Annotated[Path | None, typer.Option(help="Validation table; by default a share of the rows.")] = None,
    test: Annotated[Path | None, typer.Option(help="Test table; by default a share of the rows.")] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder; embeddings are kept in it.")] = None,
    layers: Annotated[str | None, typer.Option(help="all, or numbers with commas (0: embeddings, -1: last).")] = None,
    trials: Annotated[int | None, typer.Option(help="Trials of the search; 0: only the layer curve.")] = None,
    init: Annotated[str | None, typer.Option(help="pretrained, or random for the control.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Find the layer, pooling and simple probe that read your labels best off a frozen model.

    Every layer and pooling comes from one pass over the sequences, which is kept; the choice is made on training and
    validation rows, and the winner is measured once on the test rows, beside k-mer regression.
    """
    from longstrand.benchmarks.probe_run import ProbeConfig, run_probe
    from longstrand.benchmarks.probing.probe import where_of
    from longstrand.config import build, merge, read_yaml

    options: dict[str, Any] = {"output": output, "model": model, "init": init, "device": device}
    values = merge(read_yaml(config) if config else {}, settings or [])
    values |= {key: value for key, value in options.items() if value is not None}
    nested = {"data": {"train": train, "valid": valid, "test": test}, "probe": {"layers": layers, "trials": trials}}
    for section, entries in nested.items():
        given = {key: value for key, value in entries.items() if value is not None}
        if given:
            values[section] = {**(values.get(section) or {}), **given}
    resolved = build(ProbeConfig, values, str(config or "settings"), options=REQUIRED)
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
