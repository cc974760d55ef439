"""``longstrand probe``: labelled sequences and a model in, the best layer, pooling and probe out, measured once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from longstrand.benchmarks.page import layer_sections
from longstrand.benchmarks.probing.probe import ProbeResult, ProbeSettings, probe_model, where_of
from longstrand.benchmarks.probing.states import States
from longstrand.benchmarks.run_trial import load_encoder
from longstrand.config import StrictModel, build
from longstrand.data.labelled import LabelledTable, label_warnings
from longstrand.errors import InputError, UsageError
from longstrand.evaluation.metrics import PRIMARY, Scores, evaluate
from longstrand.models.tensors import fingerprint_weights
from longstrand.report.page import write_report
from longstrand.report.sections import Metrics, Report, Section, Table, metric_rows, metric_title, provenance_table
from longstrand.runtime import fingerprint_file, leave_process_group, model_folder, provenance, resolve_device
from longstrand.tokenization.hub import load_tokenizer
from longstrand.training.examples import check_strand, load_splits
from longstrand.training.measure import run_baselines
from longstrand.training.run_folder import RunFolder
from longstrand.training.settings import DataSettings

if TYPE_CHECKING:
    from longstrand.models.network import Network

logger = logging.getLogger(__name__)


class ProbeConfig(StrictModel):
    """A complete probing run."""

    output: Path = Field(description="run folder; embeddings are kept there, and the same command uses them again")
    model: Path = Field(description="model folder")
    init: Literal["pretrained", "random"] = Field("pretrained", description="random: the control without pre-training")
    data: DataSettings
    probe: ProbeSettings = Field(default_factory=ProbeSettings)
    strand: Literal["+", "both"] = Field("+", description="both: vectors of the two strands are averaged")
    max_tokens: int | None = Field(None, ge=4, description="longest input in tokens; default: what the model reads")
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_tokens: int = Field(16_384, gt=0, description="tokens of a batch")
    resamples: int = Field(1000, ge=0, description="bootstrap resamples of the intervals")
    device: str = Field("auto", description="auto, cpu, cuda, mps")


def probe(
    model: str | Path | Network,
    train: str | Path,
    *,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    output: str | Path = "probe",
    **settings: Any,
) -> dict[str, Any]:
    """Find the layer, pooling and simple probe that read labels best off a frozen model.

    Args:
        model: folder, name that `longstrand.load_model` takes, or loaded model.
        train: labelled table; by default a share of its rows is for validation and for the test.
        valid: validation rows.
        test: test rows.
        output: run folder; the same call uses the states again that are kept there.
        settings: further ones of `ProbeConfig`, for example ``probe={"trials": 0}``.

    Returns:
        The report: ``probe`` (curve of the layers, trials, choice), ``test`` (metrics with intervals), ``baselines``.

    Raises:
        LongstrandError: wrong settings, labels or model.
    """
    folder = model_folder(getattr(model, "folder", None) or model)
    data = {"train": Path(train), "valid": valid and Path(valid), "test": test and Path(test)}
    data = {name: path for name, path in data.items() if path} | settings.pop("data", {})
    report = run_probe(build(ProbeConfig, {"model": folder, "data": data, "output": Path(output)} | settings))
    assert report is not None, "a notebook is one process"
    return report


def run_probe(config: ProbeConfig, *, notice: Callable[[str], None] = logger.info) -> dict[str, Any] | None:
    """Embed once, choose without the test rows, measure once; writes ``report.html`` and ``report.json``.

    Returns:
        The report: ``probe`` (layer curve, trials, choice), ``test``, ``baselines``, ``seconds``, ... None in all
        processes of a ``torchrun`` but the first, which does the work.

    Raises:
        LongstrandError: wrong settings, labels or model.
    """
    launch = leave_process_group()
    if launch.rank:
        return None
    if launch.count > 1:
        notice(f"probing is done by one process; the other {launch.count - 1} end")
    config = config.model_copy(update={"model": model_folder(config.model)})
    tokenizer = load_tokenizer(config.model)
    splits = load_splits(config.data, alphabet=tokenizer.alphabet)
    notice(splits.task.notice())
    for warning in label_warnings(dict(splits.items())):
        notice(f"mind: {warning}")
    check_strand(splits.task, config.strand)
    if splits.test is None:
        raise UsageError("probing needs test rows; give data.test, or leave data.test_fraction above zero.")
    _refuse_constant(splits.test)
    run = RunFolder.open(config.output, config)
    try:
        identity = {"model": fingerprint_weights(config.model), "init": config.init}
        tables = dict(splits.items())
        run.check_inputs(identity | {"tables": [fingerprint_file(Path(table.raw.source)) for table in tables.values()]})
        if run.report is not None:
            return run.report
        model = load_encoder(config.model, random_seed=config.probe.seed if config.init == "random" else None)
        read = {name: getattr(config, name) for name in ("strand", "precision", "batch_tokens")}
        states, found = probe_model(
            model.to(resolve_device(config.device)),
            tables,
            config.output / "embeddings",
            config.probe,
            identity=identity,
            notice=notice,
            max_tokens=config.max_tokens,
            **read,
        )
        report = _report(config, states, found, tables)
        _write(config, report)
        run.finish(report)
        return report
    finally:
        run.close()


def _refuse_constant(test: LabelledTable) -> None:
    """Refuse test rows in which the main metric is undefined, before anything is computed.

    Raises:
        InputError: all values of a target (of every label) are the same.
    """
    if test.task.problem not in ("regression", "multi_label"):
        return
    targets = np.asarray(test.targets, dtype=np.float64)
    known = [column[~np.isnan(column)] for column in targets.T]
    flat = [len(values) == 0 or bool(np.ptp(values) == 0) for values in known]
    if all(flat) or (test.task.problem == "regression" and any(flat)):
        raise InputError(
            f"{test.raw.source}: all test values of '{test.task.names[flat.index(True)]}' are the same, so "
            f"{PRIMARY[test.task.problem]} is undefined; give other test rows."
        )


def _report(
    config: ProbeConfig, states: States, found: ProbeResult, tables: dict[str, LabelledTable]
) -> dict[str, Any]:
    test = tables["test"]
    scores = Scores.of(test, found.predict(states, "test"))
    measured = {name: tables[name] for name in ("valid", "test")}
    both = config.strand == "both"
    baselines = run_baselines(tables["train"], measured, both_strands=both, num_resamples=config.resamples)
    return {
        "kind": "probing",
        "init": config.init,
        "task": {"problem": test.task.problem, "names": list(test.task.names)},
        "rows": {name: len(table) for name, table in tables.items()},
        "probe": found.to_dict(),
        "test": evaluate(scores, num_resamples=config.resamples, curves=False),
        "baselines": {name: {"test": entry["test"]} for name, entry in baselines.items()},
        "embedding_seconds": states.seconds,
        "settings": config.model_dump(mode="json"),
        "provenance": provenance(),
    }


def _write(config: ProbeConfig, report: dict[str, Any]) -> None:
    """Write the page of a probing run."""
    found, metric = report["probe"], report["test"]["primary"]
    chosen = found["chosen"]
    rows = metric_rows("probe", [report["test"]])
    for name, title in (("kmer", "k-mer regression"), ("majority", "majority")):
        if name in report["baselines"]:
            rows += metric_rows(title, [report["baselines"][name]["test"]])
    rows = [row for row in rows if row.value is not None]
    best = sorted(found["trials"], key=lambda trial: -trial["mean"])[:10]
    columns = ["layer", "pooling", "probe", "strength", "hidden units", "score", "sd over folds"]
    lines = [[trial[key] for key in ("layer", "pooling", "kind", "strength", "width", "mean", "sd")] for trial in best]
    explain = f"Measured once, on {report['rows']['test']:,} test rows, with the choice made on the others."
    sections: list[Section] = [Metrics("Result", explain, rows, main=metric)]
    sections += layer_sections("Probe", [(config.model.name, found)])
    if lines:
        sections.append(Table("The search", "The ten best trials, best first.", columns, lines))
    sections.append(provenance_table(report["provenance"]))
    where = where_of(chosen)
    value = report["test"]["metrics"][metric]["value"]
    summary = [f"Chosen: {where}; {metric_title(metric)} on the test rows {value:.3f}."]
    write_report(config.output / "page", Report("Probing", sections, str(config.model), summary))
