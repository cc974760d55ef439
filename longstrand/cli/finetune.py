"""``longstrand finetune``: labelled sequences and a model in, a measured model folder out."""

from __future__ import annotations

import shlex
from typing import Any

import typer

from longstrand.cli.options import JsonOption, new_app, run_options
from longstrand.cli.pretrain import finish

app = new_app()

SHOWN = (
    "mcc", "roc_auc", "accuracy", "f1_macro", "mean_roc_auc", "mean_average_precision", "pearson", "spearman", "r2",
)  # fmt: skip


@app.command()
@run_options("finetune", example="training.epochs=10")
def finetune(read: Any, json: JsonOption = False) -> None:
    """Fine-tune a model on your labelled sequences or intervals, and measure it once on test rows.

    The kind of problem (classes, several labels, numbers, labels per base) is found in the table and printed. Beside
    the model, k-mer regression is measured on the same rows. Kill it at any moment: the same command resumes it.
    """
    from longstrand.training.finetune import finetune as run
    from longstrand.training.settings import FinetuneConfig

    resolved = read(FinetuneConfig, plain={"model": "path", "data": "train"})
    finish(run(resolved, notice=lambda sentence: typer.echo(sentence, err=True)), json, _show)


def _show(result: Any) -> None:
    from longstrand.report.runs import BASELINES

    report = result.report
    split = "test" if "test" in report else "valid"
    if report["collapsed"]:
        typer.echo("NOT TRAINED: the model gives the same answer to every sequence, see below")
    typer.echo(f"model: {result.model}  (best step {report['best_step']} of {report['steps']})")
    typer.echo(f"{split}: {metrics_line(report[split])}")
    for name, found in report.get("baselines", {}).items():
        typer.echo(f"  {BASELINES.get(name, name)}: {metrics_line(found[split])}")
    for warning in report["warnings"]:
        typer.echo(f"mind: {warning}")
    if report["settings"]["evaluation"]["page"]:
        typer.echo(f"report: {result.folder / 'report.html'}")
    if "signals" in report:
        settings = report["settings"]["data"]
        model, genome = (shlex.quote(str(path)) for path in (result.model, settings["fasta"]))
        typer.echo(
            f"next: longstrand predict {model} {genome} --regions {shlex.quote(settings['train'])} --output tracks"
        )
        return
    typer.echo(
        f"next: longstrand predict {shlex.quote(str(result.model))} new.csv --output predictions.csv{_as_read(report)}"
    )


def _as_read(report: dict[str, Any]) -> str:
    """Write the options with which ``predict`` reads rows as this run measured them."""
    data, columns = report["settings"]["data"], report["settings"]["data"]["columns"]
    words = {
        "--genome": data["fasta"],
        "--window": data["window"],
        "--sequence-column": None if columns["sequence"] == "sequence" else columns["sequence"],
        "--pair-column": columns["pair"],
        "--strand": None if report["settings"]["evaluation"]["strand"] == "+" else "both",
    }
    text = "".join(f" {option} {shlex.quote(str(value))}" for option, value in words.items() if value is not None)
    text += " --exact-text" if data["exact_text"] else ""
    return text + (" --truncate" if any(part["num_truncated"] for part in report["splits"].values()) else "")


def metrics_line(evaluation: dict[str, Any]) -> str:
    """Write the usual metrics of an evaluation with their intervals."""
    parts = []
    for name in SHOWN:
        entry = evaluation["metrics"].get(name)
        if entry is None or entry["value"] is None or entry["value"] != entry["value"]:
            continue
        interval = f" [{entry['low']:.3f}, {entry['high']:.3f}]" if entry.get("low") is not None else ""
        parts.append(f"{name} {entry['value']:.3f}{interval}")
    return ", ".join(parts) or "no metric is defined"
