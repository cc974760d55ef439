"""``longstrand finetune``: labelled sequences and a model in, a measured model folder out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.options import (
    DeviceOption,
    GenomeOption,
    JsonOption,
    LabelColumnOption,
    ModelOption,
    SequenceColumnOption,
    ThreadsOption,
    new_app,
)
from longstrand.cli.pretrain import finish

app = new_app()

KEYS = {
    "output": "output", "model": "model.path", "init": "model.init", "method": "method", "train": "data.train",
    "valid": "data.valid", "test": "data.test", "sequence_column": "data.columns.sequence",
    "label_column": "data.columns.labels", "problem": "data.problem", "genome": "data.fasta", "window": "data.window",
    "exact_text": "data.exact_text", "valid_chroms": "data.valid_chroms", "test_chroms": "data.test_chroms",
    "strand": "training.strand", "epochs": "training.epochs", "rate": "training.learning_rate",
    "seed": "training.seed", "device": "training.device", "threads": "training.threads",
}  # fmt: skip
"""Each option of the command, and the setting that it stands for."""
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
    model: ModelOption = None,
    train: TrainOption = None,
    valid: Annotated[
        Path | None, typer.Option(help="Validation table; by default a share of the training rows.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Test table; by default a share of the training rows.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Run folder; the same command resumes an interrupted run.")
    ] = None,
    sequence_column: SequenceColumnOption = None,
    label_column: LabelColumnOption = None,
    problem: Annotated[
        str | None, typer.Option(help="single_label, multi_label, regression or token; by default inferred.")
    ] = None,
    genome: GenomeOption = None,
    window: Annotated[int | None, typer.Option(help="Bases around the centre of each interval.")] = None,
    exact_text: ExactOption = None,
    valid_chroms: Annotated[str | None, typer.Option(help="Chromosomes for validation, with commas.")] = None,
    test_chroms: Annotated[str | None, typer.Option(help="Chromosomes for the test, with commas.")] = None,
    init: Annotated[str | None, typer.Option(help="pretrained, or random for the control.")] = None,
    method: Annotated[
        str | None, typer.Option(help="Weights that are trained: full, frozen (the head), or an adapter (lora, ia3).")
    ] = None,
    strand: Annotated[
        str | None, typer.Option(help="+, or both: average the two strands; by default both unless labels run one way.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training rows, at most; by default by size.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", "--lr", help="Learning rate; by default tried on the validation rows.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of new weights, row order and dropout.")] = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a model on your labelled sequences or intervals, and measure it once on test rows.

    The kind of problem (classes, several labels, numbers, labels per base) is found in the table and printed. Beside
    the model, k-mer regression is measured on the same rows. Kill it at any moment: the same command resumes it.
    """
    given = locals()
    from longstrand.config import from_command_line
    from longstrand.training.finetune import finetune as run
    from longstrand.training.settings import FinetuneConfig

    options = {f"--{name.replace('_', '-')}": (key, given[name]) for name, key in KEYS.items()}
    plain = {"model": "path", "data": "train"}
    resolved = from_command_line(FinetuneConfig, config, settings or [], options, plain=plain)
    finish(run(resolved, notice=lambda sentence: typer.echo(sentence, err=True)), as_json, _show)


def _show(result: Any) -> None:
    report = result.report
    split = "test" if "test" in report else "valid"
    if report["collapsed"]:
        typer.echo("NOT TRAINED: the model gives the same answer to every sequence, see below")
    typer.echo(f"model: {result.model}  (best step {report['best_step']} of {report['steps']})")
    typer.echo(f"{split}: {metrics_line(report[split])}")
    for name, title in (("kmer", "k-mer regression"), ("majority", "majority")):
        if name in report.get("baselines", {}):
            typer.echo(f"  {title}: {metrics_line(report['baselines'][name][split])}")
    for warning in report["warnings"]:
        typer.echo(f"mind: {warning}")
    if report["settings"]["evaluation"]["page"]:
        typer.echo(f"report: {result.folder / 'report.html'}")
    typer.echo(
        f"next: longstrand predict {shlex.quote(str(result.model))} new.csv --output predictions.csv{_as_read(report)}"
    )


def _as_read(report: dict[str, Any]) -> str:
    """Write the options with which ``predict`` reads rows as this run measured them."""
    data, columns = report["settings"]["data"], report["settings"]["data"]["columns"]
    words = {
        "--fasta": data["fasta"],
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
