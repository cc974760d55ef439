"""What a fine-tuning run reports: evaluations, baselines, counts, warnings, and the predictions of the test rows."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.data.splits import leakage
from longstrand.evaluation.metrics import evaluate
from longstrand.runtime import write_atomically
from longstrand.training.baseline import run_baselines

if TYPE_CHECKING:
    import polars as pl

    from longstrand.training.finetune import Prepared
    from longstrand.training.finetune_config import FinetuneConfig
    from longstrand.training.finetune_scoring import Scored

logger = logging.getLogger(__name__)


def make_report(
    config: FinetuneConfig,
    data: Prepared,
    scored: Mapping[str, Scored],
    *,
    rows: list[dict[str, Any]],
    best_step: int,
) -> dict[str, Any]:
    """Evaluate the best checkpoint and describe the run.

    Args:
        config: the settings.
        data: splits and tokens.
        scored: predictions of the validation and (if there is one) the test rows.
        rows: rows of ``metrics.jsonl``.
        best_step: step of the checkpoint that was measured.

    Returns:
        ``task``, ``splits`` (counts of each), ``valid`` and ``test`` (as `longstrand.evaluation.metrics.evaluate`),
        ``baselines`` ({name: {split: evaluation}}), ``leakage``, ``warnings`` (sentences), ``curve`` (evaluations of
        the training), ``best_step``.
    """
    settings, task = config.evaluation, data.splits.task
    report: dict[str, Any] = {
        "kind": "finetuning",
        "init": config.model.init,
        "task": {"problem": task.problem, "names": list(task.names), "columns": list(task.columns), "why": task.reason},
        "split_origin": data.splits.raw.origin,
        "splits": {name: _split_counts(data, name) for name, _ in data.splits.items()},
        "best_step": best_step,
        "steps": max((row["step"] for row in rows), default=0),
        "metric": data.metric,
        "curve": [row for row in rows if "eval_loss" in row],
        "training_loss": [{"step": row["step"], "loss": row["loss"]} for row in rows if "loss" in row],
    }
    for name, result in scored.items():
        report[name] = evaluate(result.scores(), num_resamples=settings.resamples, seed=0) | {"loss": result.loss()}
    report["leakage"] = leakage(data.splits.raw)
    if settings.baselines and task.bin_bases is None:
        report["baselines"] = run_baselines(
            data.splits.train,
            {name: result.table for name, result in scored.items()},
            k=settings.kmer,
            both_strands=settings.strand == "both",
            num_resamples=settings.resamples,
        )
    report["warnings"] = warnings_of(report)
    return report


def _split_counts(data: Prepared, name: str) -> dict[str, Any]:
    table, tokens = dict(data.splits.items())[name], data.tokenized[name]
    lengths = [len(encoding) for encoding in tokens.encodings]
    return table.counts() | {
        "num_truncated": tokens.num_truncated,
        "num_without_tokens": tokens.num_empty,
        "max_tokens": data.limit,
        "tokens": {"median": float(np.median(lengths)), "max": int(max(lengths))},
    }


def warnings_of(report: Mapping[str, Any]) -> list[str]:
    """Say in sentences what a reader must know before believing the numbers."""
    warnings = []
    for name, counts in report["splits"].items():
        if counts["num_truncated"]:
            warnings.append(
                f"{name}: {counts['num_truncated']:,} of {counts['num_rows']:,} sequences were cut to "
                f"{counts['max_tokens']:,} tokens, what the model can read."
            )
        if counts["num_without_tokens"]:
            warnings.append(f"{name}: {counts['num_without_tokens']:,} sequences are too short to have a token.")
        if counts["num_rows_dropped"]:
            warnings.append(
                f"{name}: {counts['num_rows_dropped']:,} rows were left out, their window leaves the chromosome."
            )
        if counts["num_unknown_letters"] > 0.01 * counts["num_bases"]:
            share = 100 * counts["num_unknown_letters"] / counts["num_bases"]
            warnings.append(f"{name}: {share:.1f} % of the letters are unknown (N or ambiguous).")
    for name in ("valid", "test"):
        if report.get(name, {}).get("constant_prediction"):
            warnings.append(
                f"{name}: the model gives the same answer to every sequence; it has learned nothing useful."
            )
        num_copies = report["leakage"].get(name, {}).get("num_rows_also_in_train", 0)
        if num_copies:
            warnings.append(f"{name}: {num_copies:,} sequences are also in the training rows (on either strand).")
    warnings += _against_baselines(report)
    return warnings


def _against_baselines(report: Mapping[str, Any]) -> list[str]:
    split = "test" if "test" in report else "valid"
    primary = report[split]["primary"]
    ours = report[split]["metrics"].get(primary, {}).get("value")
    theirs = report.get("baselines", {}).get("kmer", {}).get(split, {}).get("metrics", {}).get(primary, {}).get("value")
    if ours is None or theirs is None or not ours < theirs:
        return []
    return [f"{split}: k-mer regression is better ({primary} {theirs:.3f} against {ours:.3f})."]


def write_predictions(scored: Scored, path: Path) -> None:
    """Write one row for each row of the table, in its order, as CSV or Parquet (by the name of the file).

    Columns: ``row`` and ``name``, labels, predictions (class and probabilities, probabilities of labels, numbers),
    ``num_tokens``, ``truncated``. For token problems ``label`` and ``predicted`` hold one class a base, separated by
    spaces; bases past the cut are ``?``.
    """
    frame = prediction_frame(scored)
    buffer = io.BytesIO()
    if path.suffix == ".parquet":
        frame.write_parquet(buffer)
    else:
        frame.write_csv(buffer)
    write_atomically(path, buffer.getvalue())


def prediction_frame(scored: Scored) -> pl.DataFrame:
    """Make the table of `write_predictions`."""
    import polars as pl

    raw, task = scored.table.raw, scored.table.task
    columns: dict[str, Any] = {"row": raw.rows}
    if raw.names is not None:
        columns["name"] = raw.names
    if task.bin_bases is not None:
        columns |= _bin_columns(scored)
    elif task.problem == "token":
        columns |= _token_columns(scored)
    else:
        values = scored.scores().values
        targets = np.asarray(scored.table.targets)
        if task.problem == "single_label":
            columns["label"] = [task.names[index] for index in targets]
            known = ~np.isnan(values).any(axis=1)
            called = np.where(known[:, None], values, 0).argmax(axis=1)
            columns["predicted"] = [task.names[index] if there else None for index, there in zip(called, known)]
            columns |= {f"probability_{name}": values[:, number] for number, name in enumerate(task.names)}
        else:
            word = "predicted" if task.problem == "regression" else "probability"
            for number, name in enumerate(task.names):
                columns[name if name not in columns else f"label_{name}"] = targets[:, number]
                columns[f"{word}_{name}"] = values[:, number]
    columns |= {"num_tokens": scored.num_tokens, "truncated": scored.truncated}
    return pl.DataFrame(columns, nan_to_null=True)


def _bin_columns(scored: Scored) -> dict[str, list[str]]:
    """Give targets and predictions of each target, the numbers of a row's bins joined by ``;``."""

    def joined(rows: Any, number: int) -> list[str]:
        return [";".join("" if value != value else f"{value:g}" for value in row[:, number]) for row in rows]

    columns = {}
    for number, name in enumerate(scored.table.task.names):
        columns[name] = joined(scored.table.targets, number)
        columns[f"predicted_{name}"] = joined(scored.logits, number)
    return columns


def _token_columns(scored: Scored) -> dict[str, list[str]]:
    names = [*scored.table.task.names, "?"]
    labels, predicted = [], []
    for target, logits in zip(scored.table.targets, scored.logits):
        known = ~np.isnan(logits).any(axis=1)
        called = np.where(known, np.where(known[:, None], logits, 0).argmax(axis=1), len(names) - 1)
        labels.append(" ".join(names[index] if index >= 0 else "?" for index in target))
        predicted.append(" ".join(names[index] for index in called))
    return {"label": labels, "predicted": predicted}
