"""``longstrand pretrain``: settings in, a model folder out."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.options import JsonOption, new_app, run_options

app = new_app()
PAPERS = Path(__file__).parent.parent / "training" / "papers"


@app.command()
@run_options("pretrain", example="training.steps=2000", shipped=PAPERS)
def pretrain(
    read: Any,
    list_presets: Annotated[bool, typer.Option("--list-presets", help="Show the model sizes and stop.")] = False,
    list_papers: Annotated[
        bool, typer.Option("--list-papers", help="Show the settings of papers, for --config NAME, and stop.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Pre-train a masked DNA language model on FASTA files.

    Windows are read from the indexed FASTA on the fly; contigs or stretches are held out and measured. Kill it at any
    moment: the same command resumes it and ends with the same weights.
    """
    if list_presets:
        from longstrand.models.config import PRESETS

        for name, fields in PRESETS.items():
            print(f"{name:<10}" + ", ".join(f"{key} {value}" for key, value in fields.items()))
        return
    if list_papers:
        for path in sorted(PAPERS.glob("*.yaml")):
            print(f"{path.stem:<12}" + path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))
        return
    from longstrand.training.pretrain import pretrain as run
    from longstrand.training.settings import PretrainConfig

    finish(run(read(PretrainConfig, plain={"data": "genomes"})), json, _show)


def finish(result: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    """Print what a training run did, once for all processes; exit with 128 + signal if a signal stopped it."""
    from longstrand.runtime import rank

    if rank() == 0 and as_json:
        facts = {"folder": str(result.folder), "model": str(result.model), "stopped_by": result.stopped_by}
        print(json.dumps(result.report | facts, indent=2, default=str))
    elif rank() == 0 and result.stopped_by:
        print(f"stopped by {result.stopped_by}; the state is in {result.folder}. The same command goes on from there.")
    elif rank() == 0:
        show(result)
    if result.stopped_by:
        raise SystemExit(128 + signal.Signals[result.stopped_by])


def _show(result: Any) -> None:
    from longstrand.report.runs import KNOWN

    report, held = result.report, result.report["hold_out"]
    print(f"model: {result.model}  ({report['parameters']:,} parameters, {report['bases_seen']:,} bases seen)")
    numbers = (
        f"loss {held['loss']:.4f} nats/token, accuracy {held['accuracy']:.3f}, {held['bits_per_base']:.4f} bits/base"
    )
    print(f"hold-out: {numbers}")
    for name, found in report["references"].items():
        if isinstance(found, dict):
            print(f"  {KNOWN[name]}: {found['loss']:.4f} nats/token, {found['bits_per_base']:.4f} bits/base")
    print(f"next: longstrand finetune --model {shlex.quote(str(result.model))} --train labels.csv --output finetuned")
