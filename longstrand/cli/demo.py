"""``longstrand demo``: the first five minutes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from longstrand.cli.options import new_app

app = new_app()


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything that is made.")] = Path(
        "demo_output"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulated genome and of pre-training.")] = 0,
    genome: Annotated[
        list[Path] | None, typer.Option(help="Your FASTA file instead of a simulated genome; may be repeated.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Folder with train.csv, dev.csv and test.csv (columns sequence,label).")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, max=600, help="Rough amount of training, on two CPU cores.")] = 3.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Half a minute that only shows that everything works.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """From a genome to a trained model and a report, in minutes.

    Simulates two related genomes with planted promoters, trains a tokenizer and a DNA language model on them,
    fine-tunes it to find promoters, compares with a random start and a 6-mer regression, and writes report.html. The
    same command goes on after an interruption.
    """
    import sys

    from longstrand.config import build
    from longstrand.demo.run import DemoConfig, gather, make_plan, next_commands, run_demo

    values = {
        "output": output,
        "seed": seed,
        "genome": genome or [],
        "labels": labels,
        "quick": quick,
        "minutes": minutes,
    }
    config = build(DemoConfig, values, "demo")
    result = run_demo(config, say=lambda line: print(f"[demo] {line}", file=sys.stderr, flush=True))
    if as_json:
        shown = {"folder": result.folder, "page": result.page, "data": result.data}
        print(json.dumps({name: str(path) for name, path in shown.items()} | {"verdict": result.verdict}, indent=2))
        return
    print("\n" + "\n".join(result.verdict))
    print(f"\nThe report: {result.page}   (for programs: {result.data})   {result.seconds:.0f} s")
    print("\nWhat to try next:")
    for what, command in next_commands(config, gather(config, make_plan(config), lambda line: None)):
        print(f"  {what}\n    {command}")
