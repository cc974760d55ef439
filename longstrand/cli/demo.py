"""``longstrand demo``: the first five minutes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from longstrand.cli.options import JsonOption, new_app

app = new_app()


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything that is made.")] = Path(
        "demo_output"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of training; the simulated genome is always the same.")] = 0,
    genome: Annotated[
        list[Path] | None, typer.Option(help="Your FASTA file instead of a simulated genome; may be repeated.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Folder with train.csv, dev.csv and test.csv (columns sequence,label).")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A short run that only shows that everything works.")] = False,
    yeast: Annotated[
        bool, typer.Option("--yeast", help="The real yeast genome with the shipped model, 300 and 2,000 labels.")
    ] = False,
    annotation: Annotated[Path | None, typer.Option(help="With --yeast and --genome: its GTF or GFF3 file.")] = None,
    download: Annotated[
        bool, typer.Option("--download", help="With --yeast: get genome and annotation (about 4 MB), once.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """From a genome to a trained model and a report, in minutes.

    Simulates a genome with a planted grammar, pre-trains a DNA language model on it, fine-tunes it with 200 labels,
    compares with a random start and simple baselines, and writes report.html. The same command goes on after an
    interruption.
    """
    import sys

    from longstrand.config import build
    from longstrand.demo.materials import DemoConfig
    from longstrand.demo.run import run_demo

    values = {
        "output": output,
        "seed": seed,
        "genome": genome or [],
        "labels": labels,
        "quick": quick,
        "yeast": yeast,
        "annotation": annotation,
        "download": download,
    }
    result = run_demo(
        build(DemoConfig, values, "demo"), say=lambda line: print(f"[demo] {line}", file=sys.stderr, flush=True)
    )
    if as_json:
        shown = {"folder": result.folder, "page": result.page, "data": result.data}
        print(json.dumps({name: str(path) for name, path in shown.items()} | {"verdict": result.verdict}, indent=2))
        return
    print("\n" + "\n".join(result.verdict))
    print(f"\nThe report: {result.page}   (for programs: {result.data})   {result.seconds:.0f} s")
    print("\nWhat to try next:")
    for what, command in result.commands:
        print(f"  {what}\n    {command}")
