"""Measure a trained model on new labelled rows: metrics with intervals, groups of rows, baselines beside it.

The rows are read as the model was trained to read them (its reading record); who reads otherwise is told.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.config import build
from longstrand.data.labelled import LabelledTable, label
from longstrand.data.labelled_files import GenomeWindows, LabelColumns, RawTable, read_labelled
from longstrand.data.rows import Columns, has_intervals, refuse_genome
from longstrand.data.targets import Task, infer_task
from longstrand.errors import CheckpointError, InputError, UsageError
from longstrand.evaluation.calibration import calibration, fit_temperature
from longstrand.evaluation.metrics import evaluate as metrics_of
from longstrand.evaluation.sanity import check_splits
from longstrand.inference.jobs import notices, too_long_notes
from longstrand.inference.loaded import Model, obey, open_model
from longstrand.inference.options import FileOptions, RowSource
from longstrand.inference.sequences import open_genome
from longstrand.models.ensemble import name_of
from longstrand.models.network import Network
from longstrand.models.reading import KEY, Reading
from longstrand.models.tensors import RECORD, read_record
from longstrand.report.page import write_report
from longstrand.report.runs import BASELINES, MODEL, errors_table, evaluation_sections, groups_tables
from longstrand.report.sections import Report, metric_title, provenance_table
from longstrand.runtime import Notice, check_output, fingerprint_file, provenance, resolve_device, write_json
from longstrand.training.examples import check_strand
from longstrand.training.measure import (
    Scored,
    groups_of,
    overlap_warnings,
    run_baselines,
    same_answers,
    score,
    unread,
    worst_rows,
    write_predictions,
)

logger = logging.getLogger(__name__)


def evaluate(
    model: Model,
    labelled: str | Path,
    *,
    train: str | Path | None = None,
    output: str | Path | None = None,
    strand: str | None = None,
    device: str = "auto",
    resamples: int = 1000,
    notice: Notice = logger.info,
    **rows: Any,
) -> dict[str, Any]:
    """Measure a fine-tuned model on new labelled rows.

    Args:
        model: folder, run, hub id or loaded model, with a head; several (a list, folders with commas): an ensemble.
        labelled: table (sequence,label) or intervals, as `longstrand finetune` reads them.
        train: training rows in the same form; k-mer regression and the majority are fitted to them and stand beside.
        output: folder for ``report.json``, ``report.html`` and ``predictions.csv``; None writes nothing.
        strand: ``+``, ``-`` or ``both``; by default as the model was measured.
        device: auto, cpu, cuda, mps.
        resamples: of the 95 % intervals; 0: none.
        notice: receives sentences for the user.
        **rows: fields of `RowSource`: genome, window, sequence_column, label_column, pair_column, group_column.

    Returns:
        ``test`` (as `longstrand.evaluation.metrics.evaluate`, with ``loss``), ``groups`` (as of
        `longstrand.training.measure.groups_of`: by a column, chromosome and GC content),
        ``baselines`` ({name: {"test": the same}}), ``calibration`` (as of `longstrand.evaluation.calibration`),
        ``rows``, ``task``, ``warnings``, ``provenance``.

    Raises:
        CheckpointError: the model has no head that labels could be compared with.
        ConfigError: an option is unknown or wrong.
        InputError: the rows are damaged, or hold a class that the model does not know.
        UsageError: labels with a direction are to be read from both strands, or a pair is missing.
    """
    where = build(RowSource, rows, "options")
    if output is not None:
        check_output(Path(output), [labelled, train, where.genome, model])
    network, options = _open(model, where, device, notice, **({} if strand is None else {"strand": strand}))
    reading, table = network.reading or Reading(), _read(labelled, where, network, None)
    check_strand(table.task, options.strand)
    scored = score(network, table, tokenizer=network.require_tokenizer(), settings=options)
    report: dict[str, Any] = {
        "kind": "evaluation",
        "task": {"problem": table.task.problem, "names": list(table.task.names)},
        "rows": table.counts(),
        "test": metrics_of(scored.scores(), num_resamples=resamples, seed=0) | {"loss": scored.loss()},
        "errors": worst_rows(scored),
        "calibration": calibration(scored.scores(), num_resamples=resamples),
        "groups": groups_of(scored, scored.table.raw.names if where.group_column is not None else None, resamples),
        "reading": reading.model_dump(mode="json", exclude_none=True) | {"strand": options.strand},
        "inputs": {"labelled": fingerprint_file(Path(labelled)), "model": name_of(network)},
        "provenance": provenance(),
    }
    cut = sum(scored.truncated)
    problem = table.task.problem
    report["warnings"] = (
        same_answers(report["test"], problem)
        + unread("test", report["test"], problem)
        + [
            sentence.removeprefix("note: ")
            for sentence in (notices({"truncated": cut}) + too_long_notes(max(map(len, table.sequences)), reading))
        ]
    )
    if table.task.codes != table.task.names and len(table.task.names) > 1:
        pairs = ", ".join(f"{code} = {name}" for code, name in zip(table.task.codes[:8], table.task.names))
        report["warnings"].append(f"labels were taken for the outputs of the model in this order: {pairs}.")
    if train is not None:
        if table.task.bin_bases is not None:
            raise UsageError(
                "the baselines of --train are for one label a sequence or base, not for bins; leave it out."
            )
        ours = {"test": scored.scores()} if resamples else None
        both, known = options.strand == "both", _read(train, where, network, table.task)
        report["warnings"] += overlap_warnings(check_splits({"train": known.raw, "test": table.raw}))
        report["baselines"] = run_baselines(
            known, {"test": table}, both_strands=both, num_resamples=resamples, ours=ours
        )
    if output is not None:
        _write(Path(output), report, scored)
    return report


def calibrate(
    model: Model, labelled: str | Path, *, device: str = "auto", notice: Notice = logger.info, **rows: Any
) -> dict[str, Any]:
    """Fit the temperature of a model on validation rows and write it into its reading record, which `predict` obeys.

    The temperature divides logits before they become probabilities: the calls stay, how sure they are changes. Rows
    that the model was trained on make it look surer than it is; rows that it is measured on later are not for choosing.

    Args:
        model: folder or run of a model with classes or labels, or a loaded one; of an ensemble nothing is written, as
            it has no folder: pass the result as ``temperature=``.
        labelled: validation rows, as `evaluate` reads them.
        device: auto, cpu, cuda, mps.
        notice: receives sentences for the user.
        **rows: fields of `RowSource`, as `evaluate`.

    Returns:
        ``temperature``, ``loss`` and ``ece`` (each {before, after}; nats, expected calibration error), ``num_rows``,
        ``folder`` (None: nothing was written).

    Raises:
        CheckpointError: the model has no head that predicts labels.
        InputError: the rows are damaged, or no temperature is best on them.
        UsageError: the model predicts numbers.
    """
    where = build(RowSource, rows, "options")
    if where.group_column is not None:
        raise UsageError("a temperature is of all rows; leave group_column out.")
    network, options = _open(model, where, device, notice, temperature=None)
    table = _read(labelled, where, network, None)
    if table.task.problem == "regression":
        raise UsageError("a temperature is for the probabilities of classes and labels; this model predicts numbers.")
    raw = score(network, table, tokenizer=network.require_tokenizer(), settings=options)
    logits = np.concatenate(raw.logits) if isinstance(raw.logits, list) else raw.logits
    temperature = fit_temperature(logits, raw.scores())
    scaled = [one / temperature for one in raw.logits] if isinstance(raw.logits, list) else raw.logits / temperature
    both = {"before": raw, "after": replace(raw, logits=scaled)}
    network.reading = (network.reading or Reading()).model_copy(update={"temperature": temperature})
    if network.folder is not None:
        record = read_record(network.folder) | {KEY: network.reading.model_dump(mode="json")}
        write_json(network.folder / RECORD, record)
    return {
        "temperature": temperature, "loss": {name: one.loss() for name, one in both.items()},
        "ece": {name: calibration(one.scores(), num_resamples=0)["ece"]["value"] for name, one in both.items()},
        "num_rows": len(table), "folder": None if network.folder is None else str(network.folder),
    }  # fmt: skip


def _open(model: Model, where: RowSource, device: str, notice: Notice, **asked: Any) -> tuple[Network, FileOptions]:
    """Load a model that predicts labels, and how it reads its input."""
    if where.window is not None and where.genome is None:
        raise UsageError("a window needs the genome that the intervals lie on (--genome).")
    opened = open_model(model, device=device)
    network = opened.network.to(resolve_device(device))
    kind = getattr(getattr(network, "head_settings", None), "kind", "masked_lm")
    if kind not in ("sequence", "token", "bin"):
        raise CheckpointError(
            f"{name_of(network)}: a model of the kind '{kind}' predicts no labels; fine-tune it first."
        )
    window = {} if where.window is None else {"window": where.window}
    wanted = build(FileOptions, asked | window, "options")
    options, notes = obey(wanted, opened, has_pairs=where.pair_column is not None)
    for sentence in notes:
        notice(sentence)
    return network, options


def _read(path: str | Path, where: RowSource, network: Network, task: Task | None) -> LabelledTable:
    """Read labelled rows as numbers of the outputs of the model."""
    reading = network.reading or Reading()
    labels = None if where.label_column is None else tuple(where.label_column.split(","))
    group = where.group_column if task is None else None
    columns = LabelColumns(sequence=where.sequence_column, pair=where.pair_column, labels=labels, name=group)
    windows = None
    if where.genome is not None:
        if task is None and not has_intervals(Path(path), Columns(where.sequence_column)):
            refuse_genome(Path(path), where.sequence_column)
        windows = GenomeWindows(open_genome(where.genome), where.window or reading.window)
    alphabet = None if reading.exact_text else network.require_tokenizer().alphabet
    raw = read_labelled(Path(path), columns, alphabet=alphabet, windows=windows)
    names = network.head_settings.class_names if network.head_settings else None
    if names and set(names) == set(raw.labels):
        raw = replace(raw, labels={name: raw.labels[name] for name in names})
    return label(raw, task or _task(raw, network))


def _task(raw: RawTable, network: Network) -> Task:
    """Fit the labels of a table to the outputs of the model.

    Classes are known by the model's names, or by 0, 1, ... where the table holds these numbers instead.
    """
    head: Any = network.head_settings
    reading, labels, source = network.reading or Reading(), raw.labels, raw.source
    names = tuple(head.class_names or reading.class_names or map(str, range(head.num_outputs)))
    if head.kind == "bin":
        return Task("regression", names, tuple(labels), "columns", names, "", head.bin_bases)
    problem = "token" if head.kind == "token" else head.problem
    if problem == "regression" or (problem == "multi_label" and len(labels) == len(names) > 1):
        found = infer_task(raw, problem=problem)
        if len(found.names) != len(names):
            raise InputError(f"{source}: {len(found.names)} label(s) a row, but the model predicts {len(names)}.")
        return replace(found, names=names)
    if problem != "multi_label":
        return infer_task(raw, problem=problem, class_names=names)
    given = {part.strip() for value in next(iter(labels.values())) for part in (value or "").split(";")}
    numbers = tuple(map(str, range(len(names))))
    codes = numbers if given <= set(numbers) and not given <= set(names) else names
    return Task("multi_label", names, tuple(labels), "set", codes)


def _write(folder: Path, report: Mapping[str, Any], scored: Scored) -> None:
    """Write the report, its page and the predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(scored, folder / "predictions.csv")
    write_report(folder, _page(report), files=[folder / "predictions.csv"], record=False)
    write_json(folder / "report.json", report)


def _page(report: Mapping[str, Any]) -> Report:
    main, baselines = report["test"]["primary"], report.get("baselines", {})
    evaluations = {MODEL: [report["test"]]} | {BASELINES[name]: [found["test"]] for name, found in baselines.items()}
    explain = f"Measured on {report['rows']['num_rows']:,} rows. The bars are 95 % intervals."
    parts = evaluation_sections(evaluations, explain)
    parts += groups_tables(report["groups"], main)
    parts += errors_table(report["errors"])
    parts.append(provenance_table(report["provenance"], inputs=report["inputs"]))
    value = report["test"]["metrics"].get(main, {}).get("value")
    shown = "undefined" if value is None or value != value else f"{value:.3f}"
    summary = [f"{metric_title(main)} {shown}.", *calibration_sentence(report["calibration"])]
    return Report("Evaluation", parts, str(report["inputs"]["model"]), summary, report["warnings"])


def calibration_sentence(found: Mapping[str, Any]) -> list[str]:
    """Say how far probabilities are from what comes true; nothing for predicted numbers."""
    if not found:
        return []
    error, null = found["ece"], found["ece_if_calibrated"]
    ends = f" ({error['low']:.3f} to {error['high']:.3f})" if "low" in error else ""
    chance = f"on so many rows, even right probabilities would give {null:.3f} by chance"
    return [f"Expected calibration error {error['value']:.3f}{ends}; {chance}."]
