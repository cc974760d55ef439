"""``longstrand pretrain``: settings in, a model folder out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.options import new_app

app = new_app()

REQUIRED = {"data": "--genome", "data.genomes": "--genome", "output": "--output"}


@app.command()
def pretrain(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Any setting, for example training.steps=2000.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; KEY=VALUE and the options below change it.")
    ] = None,
    genome: Annotated[list[Path] | None, typer.Option(help="FASTA file, plain or gzip; may be repeated.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Tokenizer folder; without it one is trained on the genomes.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Run folder; the same command resumes an interrupted run.")
    ] = None,
    start_from: Annotated[Path | None, typer.Option("--from", help="Go on from this checkpoint folder.")] = None,
    preset: Annotated[str | None, typer.Option(help="Size of a new model (--list-presets shows them).")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, windows and masks.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    list_presets: Annotated[bool, typer.Option("--list-presets", help="Show the model sizes and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Pre-train a masked DNA language model on FASTA files.

    Windows are read from the indexed FASTA on the fly; contigs or stretches are held out and measured. Kill it at any
    moment: the same command resumes it and ends with the same weights.
    """
    from longstrand.config import build, merge, read_yaml
    from longstrand.runtime import rank

    if list_presets:
        _show_presets()
        return
    values = merge(read_yaml(config) if config else {}, settings or [])
    options = {
        "output": output,
        "data.genomes": [str(path) for path in genome] if genome else None,
        "tokenizer.path": tokenizer,
        "model.start_from": start_from,
        "model.preset": preset,
        "training.steps": steps,
        "training.seed": seed,
        "training.device": device,
    }
    for key, value in options.items():
        if value is not None:
            _put(values, key.split("."), value)
    if "warmup_steps" not in values.get("training", {}) and steps is not None:
        _put(values, ["training", "warmup_steps"], min(500, steps // 10))

    from longstrand.training.pretrain import pretrain as run
    from longstrand.training.settings import PretrainConfig

    result = run(build(PretrainConfig, values, str(config or "settings"), options=REQUIRED))
    if rank() != 0:
        return
    if as_json:
        print(
            json.dumps(
                result.report | {"folder": str(result.folder), "stopped_by": result.stopped_by}, indent=2, default=str
            )
        )
        return
    _show(result)


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


def _show(result: Any) -> None:
    if result.stopped_by:
        print(
            f"stopped by {result.stopped_by}; {result.folder} holds the state, and the same command goes on from there."
        )
        return
    report, held = result.report, result.report["hold_out"]
    print(f"model: {result.model}  ({report['parameters']:,} parameters, {report['bases_seen']:,} bases seen)")
    numbers = (
        f"loss {held['loss']:.4f} nats/token, accuracy {held['accuracy']:.3f}, {held['bits_per_base']:.4f} bits/base"
    )
    print(f"hold-out: {numbers}")
    for name, reference in report["references"].items():
        if isinstance(reference, dict):
            print(f"  reference {name}: {reference['loss']:.4f} nats/token, {reference['bits_per_base']:.4f} bits/base")
    print(f"next: longstrand finetune --model {shlex.quote(str(result.model))} --train labels.csv --output finetuned")


def _show_presets() -> None:
    from longstrand.models.config import PRESETS

    for name, fields in PRESETS.items():
        print(f"{name:<10}" + ", ".join(f"{key} {value}" for key, value in fields.items()))
