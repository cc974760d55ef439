"""``longstrand probe``: labelled sequences and a model in, the best layer, pooling and probe out, measured once.

It is a benchmark of one task and one method: the same run folder, resumable, with the same page.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from longstrand.benchmarks.probing.probe import ProbeSettings
from longstrand.benchmarks.protocol import PROBE, BenchmarkConfig
from longstrand.benchmarks.results import Benchmark
from longstrand.benchmarks.run import run_benchmark
from longstrand.benchmarks.tasks.build import write_task
from longstrand.benchmarks.tasks.task import BenchmarkTask
from longstrand.config import StrictModel, build, paths_of
from longstrand.errors import LongstrandError, UsageError
from longstrand.evaluation.metrics import PRIMARY
from longstrand.inference.loaded import stored_folder
from longstrand.runtime import Notice, check_output, leave_process_group, model_folder
from longstrand.tokenization.hub import load_tokenizer
from longstrand.training.examples import load_splits
from longstrand.training.settings import DataSettings

if TYPE_CHECKING:
    from longstrand.models.network import Network

logger = logging.getLogger(__name__)


class ProbeConfig(StrictModel):
    """A complete probing run."""

    output: Path = Field(description="run folder; embeddings are kept there, and the same command uses them again")
    model: Path = Field(description="model folder")
    random_init: bool = Field(False, description="also probe the same encoder without pre-training, as the control")
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
    sequence_column: str = "sequence",
    label_column: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Find the layer, pooling and simple probe that read labels best off a frozen model.

    Args:
        model: folder, name that `longstrand.load_model` takes, or loaded model.
        train: labelled table; by default a share of its rows is for validation and for the test.
        valid: validation rows.
        test: test rows.
        output: run folder; the same call uses the states again that are kept there.
        sequence_column: column with the sequences.
        label_column: column(s) with the labels, with commas; by default 'label'.
        settings: further ones of `ProbeConfig`, for example ``probe={"trials": 0}``.

    Returns:
        The report: ``probe`` (curve of the layers, trials, choice), ``test`` (metrics with intervals), ``baselines``.

    Raises:
        LongstrandError: wrong settings, labels or model.
    """
    folder = stored_folder(model)
    data = {"train": Path(train), "valid": valid and Path(valid), "test": test and Path(test)}
    data["columns"] = {"sequence": sequence_column, "labels": label_column}
    data = {name: path for name, path in data.items() if path} | settings.pop("data", {})
    found = run_probe(build(ProbeConfig, {"model": folder, "data": data, "output": Path(output)} | settings))
    assert found is not None, "a notebook is one process"
    return report_of(found)


def run_probe(config: ProbeConfig, *, notice: Notice = logger.info) -> Benchmark | None:
    """Embed once, choose without the test rows, measure once, beside the majority and a regression on k-mers.

    Returns:
        The benchmark; None in all processes of a ``torchrun`` but the first, which does the work.

    Raises:
        LongstrandError: wrong settings, labels or model.
    """
    launch = leave_process_group()
    if launch.rank:
        return None
    if launch.count > 1:
        notice(f"probing is done by one process; the other {launch.count - 1} end")
    model = model_folder(config.model)
    if config.data.bin_bases is not None:
        raise UsageError("probing is for labels per sequence or per base; labels per bin cannot be probed yet.")
    splits = load_splits(config.data, alphabet=load_tokenizer(model).alphabet)
    notice(splits.task.in_words())
    if splits.test is None:
        raise UsageError("probing needs test rows; give data.test, or leave data.test_fraction above zero.")
    check_output(config.output, paths_of(config))
    name, problem = f"own/{config.data.train.name.split('.')[0]}", splits.task.problem
    task = BenchmarkTask(
        name, f"your data set {config.data.train.name}", (), write_task, splits.origin,
        kind="token" if problem == "token" else "sequence", problem=problem, metric=PRIMARY[problem],
    )  # fmt: skip
    folder = config.output / "tasks" / name
    folder.mkdir(parents=True, exist_ok=True)
    tables = {split: table.raw for split, table in splits.items()}
    names = splits.task.names if config.data.class_names or config.data.class_names_file else None
    write_task(task, folder, tables, config.data.model_dump(mode="json"), class_names=names)
    same = config.model_dump(include={"strand", "max_tokens", "precision", "batch_tokens", "resamples", "probe"})
    values = {"tasks": config.output / "tasks", "models": [model], "methods": [PROBE], "protocol": same}
    values |= {"baselines": ["majority", "kmer", "context"], "seeds": [config.probe.seed], "only": [name]}
    values |= {"output": config.output, "random_init": config.random_init, "device": config.device}
    summary = run_benchmark(build(BenchmarkConfig, values), notice=notice)
    for reason in summary.failed.values():
        raise LongstrandError(reason)
    return summary.found


def report_of(found: Benchmark) -> dict[str, Any]:
    """Return what a probing run found as plain values."""
    probes = {result.init: result for result in found.results if result.kind == "probe"}
    mine, control = probes["pretrained"], probes.get("random")
    return {
        "kind": "probing",
        "rows": mine.rows,
        "probe": mine.details["probe"],
        "test": mine.test,
        "random_init": control and {"probe": control.details["probe"], "test": control.test},
        "baselines": {result.baseline: {"test": result.test} for result in found.results if result.baseline},
        "embedding_seconds": mine.details["embedding_seconds"],
        "settings": found.settings,
        "provenance": mine.provenance,
    }
