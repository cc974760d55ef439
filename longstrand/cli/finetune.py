"""``longstrand finetune``: labelled sequences and a model in, a measured model folder out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.options import new_app

app = new_app()

REQUIRED = {"output": "--output", **dict.fromkeys(("model", "model.path"), "--model")}
REQUIRED |= dict.fromkeys(("data", "data.train"), "--train")

SHOWN = (
    "mcc",
    "roc_auc",
    "accuracy",
    "f1_macro",
    "mean_roc_auc",
    "mean_average_precision",
    "pearson",
    "spearman",
    "r2",
)


TrainOption = Annotated[
    Path | None,
    typer.Option(help="Training table (sequence,label as CSV, TSV, Parquet) or intervals (BED, table)."),
]
ExactOption = Annotated[
    bool | None,
    typer.Option("--exact-text", help="Give sequences to the tokenizer as they are; by default in upper case."),
]


@app.command()
def finetune(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Any setting, for example training.epochs=10.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; KEY=VALUE and the options below change it.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder to start from.")] = None,
    train: TrainOption = None,
    valid: Annotated[
        Path | None, typer.Option(help="Validation table; by default a share of the training rows.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Test table; by default a share of the training rows.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Run folder; the same command resumes an interrupted run.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Label column(s), with commas between them.")] = None,
    problem: Annotated[
        str | None, typer.Option(help="single_label, multi_label, regression or token; by default inferred.")
    ] = None,
    fasta: Annotated[Path | None, typer.Option(help="Genome of the intervals.")] = None,
    window: Annotated[int | None, typer.Option(help="Bases around the centre of each interval.")] = None,
    exact_text: ExactOption = None,
    valid_chroms: Annotated[str | None, typer.Option(help="Chromosomes for validation, with commas.")] = None,
    test_chroms: Annotated[str | None, typer.Option(help="Chromosomes for the test, with commas.")] = None,
    init: Annotated[str | None, typer.Option(help="pretrained, or random for the control.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training rows, at most.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of new weights, row order and dropout.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Fine-tune a model on your labelled sequences or intervals, and measure it once on test rows.

    The kind of problem (classes, several labels, numbers, labels per base) is found in the table and printed. Beside
    the model, k-mer regression is measured on the same rows. Kill it at any moment: the same command resumes it.
    """
    options = {
        "output": output,
        "model.path": model,
        "model.init": init,
        "data.train": train,
        "data.valid": valid,
        "data.test": test,
        "data.columns.labels": label,
        "data.problem": problem,
        "data.fasta": fasta,
        "data.window": window,
        "data.exact_text": exact_text,
        "data.valid_chroms": valid_chroms,
        "data.test_chroms": test_chroms,
        "training.epochs": epochs,
        "training.learning_rate": lr,
        "training.seed": seed,
        "training.device": device,
    }
    resolved = _resolve(config, settings or [], options)
    from longstrand.training.finetune import finetune as run

    result = run(resolved, notice=lambda sentence: typer.echo(sentence, err=True))
    if as_json:
        about = {"folder": str(result.folder), "model": str(result.model), "stopped_by": result.stopped_by}
        typer.echo(json.dumps(result.report | about, indent=2, default=str))
        return
    _show(result)


def _resolve(config: Path | None, settings: list[str], options: dict[str, Any]) -> Any:
    """Merge the YAML file, ``key=value`` words and options into a validated `FinetuneConfig`."""
    from longstrand.config import build, merge, read_yaml
    from longstrand.training.settings import FinetuneConfig

    values = merge(read_yaml(config) if config else {}, settings)
    for section, plain in (("model", "path"), ("data", "train")):
        if isinstance(values.get(section), str):
            values[section] = {plain: values[section]}
    for key, value in options.items():
        if value is not None:
            _put(values, key.split("."), value)
    return build(FinetuneConfig, values, str(config or "settings"), options=REQUIRED)


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        if values.get(part) is None:
            values[part] = {}
        values = values[part]
    values[path[-1]] = value


def _show(result: Any) -> None:
    if result.stopped_by:
        typer.echo(
            f"stopped by {result.stopped_by}; the state is in {result.folder}. The same command goes on from there."
        )
        return
    report = result.report
    split = "test" if "test" in report else "valid"
    typer.echo(f"model: {result.model}  (best step {report['best_step']} of {report['steps']})")
    typer.echo(f"{split}: {_line(report[split])}")
    for name, title in (("kmer", "k-mer regression"), ("majority", "majority")):
        if name in report.get("baselines", {}):
            typer.echo(f"  {title}: {_line(report['baselines'][name][split])}")
    for warning in report["warnings"]:
        typer.echo(f"mind: {warning}")
    typer.echo(f"next: longstrand predict {shlex.quote(str(result.model))} new.csv --output predictions.csv")


def _line(evaluation: dict[str, Any]) -> str:
    """Write the usual metrics of an evaluation with their intervals."""
    parts = []
    for name in SHOWN:
        entry = evaluation["metrics"].get(name)
        if entry is None or entry["value"] is None or entry["value"] != entry["value"]:
            continue
        interval = f" [{entry['low']:.3f}, {entry['high']:.3f}]" if entry.get("low") is not None else ""
        parts.append(f"{name} {entry['value']:.3f}{interval}")
    return ", ".join(parts) or "no metric is defined"
