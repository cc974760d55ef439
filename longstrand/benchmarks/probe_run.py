"""``longstrand probe``: labelled sequences and a model in, the best layer, pooling and probe out, measured once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from longstrand.benchmarks.page import layer_sections
from longstrand.benchmarks.probing.embeddings import parse_layers
from longstrand.benchmarks.probing.probe import ProbeResult, ProbeSettings
from longstrand.benchmarks.probing.probe_bases import BASES
from longstrand.benchmarks.probing.steps import Cache, choose_probe, embed_tables, predict_split
from longstrand.benchmarks.run_trial import scores_of
from longstrand.config import StrictModel
from longstrand.data.labelled import LabelledTable, label_warnings
from longstrand.errors import InputError, UsageError
from longstrand.evaluation.metrics import PRIMARY, evaluate
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import longest_input
from longstrand.models.checkpoint import load_model
from longstrand.report.page import write_report
from longstrand.report.sections import Metrics, Report, Section, Table, metric_rows, metric_title, provenance_table
from longstrand.runtime import fingerprint_file, provenance, resolve_device, seed_everything
from longstrand.tokenization.hub import load_tokenizer
from longstrand.training.examples import check_strand, load_splits
from longstrand.training.measure import run_baselines
from longstrand.training.run_folder import RunFolder
from longstrand.training.settings import DataSettings

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


def run_probe(config: ProbeConfig, *, notice: Callable[[str], None] = logger.info) -> dict[str, Any]:
    """Embed once, choose without the test rows, measure once; writes ``report.html`` and ``report.json``.

    Returns:
        The report: ``probe`` (layer curve, trials, choice), ``test``, ``baselines``, ``seconds``, ...

    Raises:
        LongstrandError: wrong settings, labels or model.
    """
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
        files = sorted(config.model.glob("*.safetensors"))
        about = {"model": {path.name: fingerprint_file(path) for path in files}, "init": config.init}
        run.check_inputs(about | {"tables": [fingerprint_file(Path(table.raw.source)) for _, table in splits.items()]})
        if run.report is not None:
            return run.report
        tables = dict(splits.items())
        cache = _embed(config, tables, tokenizer, about, notice)
        found = choose_probe(cache, tables, config.probe)
        report = _report(config, cache, found, tables)
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


def _embed(
    config: ProbeConfig, tables: dict[str, LabelledTable], tokenizer: Any, about: dict[str, Any], notice: Any
) -> Cache:
    model = load_model(config.model, "encoder", tokenizer=tokenizer)
    if config.init == "random":
        seed_everything(config.probe.seed)
        model = type(model)(model.config)
    limits = [value for value in (longest_input(model.config), config.max_tokens) if value is not None]
    wanted: Any = config.probe.poolings
    settings = PredictOptions(
        output="embeddings",
        layers=parse_layers(config.probe.layers, model.config.num_hidden_layers),
        poolings=wanted,
        strand=config.strand,
        precision=config.precision,
        max_tokens=min(limits) if limits else None,
        batch_tokens=config.batch_tokens,
    )
    model = model.to(resolve_device(config.device))
    folder = config.output / "embeddings"
    more = {"tokenizer": tokenizer, "settings": settings, "about": about, "notice": notice}
    return embed_tables(model, tables, folder, probe_settings=config.probe, **more)


def _report(config: ProbeConfig, cache: Cache, found: ProbeResult, tables: dict[str, LabelledTable]) -> dict[str, Any]:
    test = tables["test"]
    scores = scores_of(test, predict_split(found, cache, "test"))
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
        "embedding_seconds": cache.seconds,
        "settings": config.model_dump(mode="json"),
        "provenance": provenance(),
    }


def where_of(chosen: dict[str, Any]) -> str:
    """Say in words what was chosen."""
    read = "each base" if chosen["pooling"] == BASES else f"{chosen['pooling']} pooling"
    return f"layer {chosen['layer']}, {read}, {chosen['kind']} probe"


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
