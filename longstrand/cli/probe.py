"""``longstrand probe``: which layer of a model knows your labels, read off by a simple probe."""

from __future__ import annotations

import json
from typing import Any

import typer

from longstrand.cli.options import JsonOption, new_app, run_options

app = new_app()


@app.command()
@run_options("probe", example="probe.folds=3")
def probe(read: Any, as_json: JsonOption = False) -> None:
    """Find the layer, pooling and simple probe that read your labels best off a frozen model.

    Every layer and pooling comes from one pass over the sequences, which is kept; the choice is made on training and
    validation rows, and the winner is measured once on the test rows, beside k-mer regression.
    """
    from longstrand.benchmarks.page import text_lines
    from longstrand.benchmarks.probe_run import ProbeConfig, report_of, run_probe
    from longstrand.benchmarks.probing.probe import where_of

    resolved = read(ProbeConfig, plain={"data": "train"})
    found = run_probe(resolved, notice=lambda sentence: typer.echo(sentence, err=True))
    if found is None:
        return  # another process of the same torchrun does the work
    report = report_of(found)
    if as_json:
        typer.echo(json.dumps(report, indent=2, default=str))
        return
    chosen = report["probe"]["chosen"]
    spread = f" ± {chosen['sd']:.3f}" if chosen["sd"] else ""
    score = f"{report['probe']['metric']} {chosen['mean']:.3f}{spread}"
    typer.echo(f"chosen: {where_of(chosen)} ({score} without the test rows)")
    typer.echo("\n".join([*text_lines(found), f"report: {resolved.output / 'report.html'}"]))
