"""``longstrand demo``: the first five minutes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.options import JsonOption, given, new_app, options_of
from longstrand.demo.settings import DemoConfig

app = new_app()


@app.command()
@options_of(DemoConfig, leave_out=["output", "genome"])
def demo(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for all; default: demo_output.")] = None,
    genome: Annotated[
        list[Path] | None, typer.Option(help="Your FASTA file instead of a simulated genome; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
    **options: Any,
) -> None:
    """From a genome to a trained model and a report, in minutes.

    Simulates a genome with a planted grammar, pre-trains a DNA language model on it, fine-tunes it with 200 labels,
    compares with a random start and simple baselines, and writes report.html. The same command goes on after an
    interruption.
    """
    import sys

    from longstrand.config import build
    from longstrand.demo.run import run_demo

    config = build(DemoConfig, given({**options, "output": output, "genome": genome}), "demo")
    result = run_demo(config, notice=lambda line: print(f"[demo] {line}", file=sys.stderr, flush=True))
    if as_json:
        shown = {"folder": result.folder, "page": result.page, "data": result.data}
        print(json.dumps({name: str(path) for name, path in shown.items()} | {"verdict": result.verdict}, indent=2))
        return
    print("\n" + "\n".join(result.verdict))
    print(f"\nThe report: {result.page}   (for programs: {result.data})   {result.seconds:.0f} s")
    print("\nWhat to try next:")
    for what, command in result.commands:
        print(f"  {what}\n    {command}")
