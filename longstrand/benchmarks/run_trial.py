"""Compute one trial: train or probe by the protocol, predict validation and test rows, measure, count the cost."""

from __future__ import annotations

import gc
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longstrand.baselines.cnn import Training
from longstrand.baselines.registry import BaselineSettings, fit_baseline
from longstrand.benchmarks.probing.probe import ProbeResult, probe_model
from longstrand.benchmarks.probing.states import States
from longstrand.benchmarks.protocol import Protocol
from longstrand.benchmarks.results import Result
from longstrand.benchmarks.tasks.task import TaskData
from longstrand.benchmarks.trials import Trial, thin_out
from longstrand.data.labelled import LabelledTable
from longstrand.errors import ResumeError, TrainingError, is_out_of_memory
from longstrand.evaluation.metrics import LOWER_IS_BETTER, Scores, evaluate
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import longest_input
from longstrand.models.checkpoint import load_model
from longstrand.models.tensors import fingerprint_weights
from longstrand.runtime import Notice, provenance, read_json, seed_everything, write_json
from longstrand.tokenization.hub import load_tokenizer
from longstrand.training.examples import LabelledSplits
from longstrand.training.finetune import finetune
from longstrand.training.measure import Scored, score
from longstrand.training.methods import FinetuneMethod, measured_cost
from longstrand.training.settings import FinetuneConfig

if TYPE_CHECKING:
    from longstrand.models.network import Network

logger = logging.getLogger(__name__)


class StoppedBySignal(Exception):
    """A fine-tuning inside a trial was asked to stop; its state is saved."""


@dataclass(frozen=True)
class RunContext:
    """Where and how a trial is computed.

    Attributes:
        folder: of the trial.
        shared: folder for what trials of one task and model share (cached embeddings).
        protocol: of the suite, with the run's overrides.
        device: name of the device.
        threads: CPU threads, or None.
        notice: receives sentences for the user.
        keep_model: keep the fine-tuned weights.
        first_seed: of the run; chooses the learning rate of all seeds if the protocol says so.
    """

    folder: Path
    shared: Path
    protocol: Protocol
    device: str
    threads: int | None
    notice: Notice
    keep_model: bool = False
    first_seed: int = 0


Measured = tuple[dict[str, Scores], dict[str, Any], dict[str, Any]]
"""Scores of valid and test, cost, and what else is to be recorded (learning rate, layer curve, ...)."""


def run_trial(
    trial: Trial, tables: Mapping[str, LabelledTable], data: TaskData, context: RunContext
) -> tuple[Result, Scores]:
    """Compute a trial.

    Args:
        trial: what.
        tables: train, valid and test rows of the task; they are thinned out here.
        data: the task.
        context: where and how.

    Returns:
        The result, and targets and predictions of the test rows.
    """
    start, notices, protocol, tell = time.perf_counter(), list[str](), context.protocol, context.notice

    def notice(sentence: str) -> None:
        notices.append(sentence)
        tell(sentence)

    context = replace(context, notice=notice)
    thinned = thin_out(dict(tables), trial.num_train or protocol.max_train_rows, trial.seed)
    settings, kind = data.data_settings(), trial.method.kind
    if kind == "baseline":
        scores, cost, details = run_baseline(trial, thinned, context, bin_loss=settings.get("bin_loss", "squared"))
    elif kind == "probe":
        scores, cost, details = run_probe(trial, thinned, context)
    else:
        scores, cost, details = run_finetuning(trial, thinned, settings, context)
    model = trial.method.model
    result = Result(
        **trial.facts(),
        metric=data.metric,
        rows={name: len(table) for name, table in thinned.items()},
        valid=evaluate(scores["valid"], num_resamples=0, curves=False),
        test=evaluate(scores["test"], num_resamples=protocol.resamples, curves=False),
        cost=cost,
        details=details,
        data=data.fingerprint,
        weights=None if model is None else fingerprint_weights(model),
        protocol=protocol,
        notices=tuple(notices),
        provenance=provenance(),
        wall_seconds=time.perf_counter() - start,
    )
    return result, scores["test"]


def run_baseline(
    trial: Trial, tables: Mapping[str, LabelledTable], context: RunContext, *, bin_loss: str = "squared"
) -> Measured:
    """Fit a baseline; numbers per bin are counts or any (squared)."""
    protocol = context.protocol
    cnn = Training(epochs=protocol.cnn_epochs, device=context.device)
    both = protocol.strand == "both"
    settings = BaselineSettings(seed=trial.seed, both_strands=both, kmer=protocol.kmer, cnn=cnn, bin_loss=bin_loss)
    with measured_cost(context.device if "cnn" in trial.method.baseline else "cpu") as cost:
        model = fit_baseline(trial.method.baseline, tables["train"], tables["valid"], settings)
    scores = {
        name: Scores.of(tables[name], model.predict(tables[name].sequences, tables[name].pairs))
        for name in ("valid", "test")
    }
    parameters = getattr(model, "num_parameters", None)
    cost |= {"parameters": parameters, "trained_parameters": parameters}
    cost["storage_bytes"] = None if parameters is None else 4 * parameters
    facts = {name: getattr(model, name, None) for name in ("penalty", "num_iterations", "epochs_trained")}
    return scores, cost, {name: value for name, value in facts.items() if value is not None}


def run_probe(trial: Trial, tables: Mapping[str, LabelledTable], context: RunContext) -> Measured:
    """Probe the frozen encoder; states of all rows are shared by the seeds (not of random weights)."""
    protocol, method, seed = context.protocol, trial.method, trial.seed
    assert method.model is not None
    is_random = method.init == "random"
    model = load_encoder(method.model, random_seed=seed if is_random else None).to(context.device)
    identity = {"model": fingerprint_weights(method.model), "init": method.init, "seed": seed if is_random else 0}
    shared = not is_random and trial.num_train is None and protocol.max_train_rows is None
    folder = (context.shared if shared else context.folder) / "embeddings"
    read = {"strand": protocol.strand, "precision": protocol.precision, "max_tokens": protocol.max_tokens, "seed": seed}

    def work(size: int) -> tuple[States, ProbeResult]:
        read["batch_tokens"] = size
        return probe_model(model, tables, folder, protocol.probe, identity=identity, notice=context.notice, **read)

    with measured_cost(context.device) as cost:
        states, chosen = _with_less_memory(work, protocol.batch_tokens, 64, context, "tokens of a batch")
    scores = {name: Scores.of(tables[name], chosen.predict(states, name)) for name in ("valid", "test")}
    trained = chosen.probe.num_parameters
    total = sum(weight.numel() for weight in model.parameters()) + trained
    cost |= {"parameters": total, "trained_parameters": trained, "storage_bytes": 4 * trained}
    if not shared:
        shutil.rmtree(folder)
    return scores, cost, {"probe": chosen.to_dict(), "embedding_seconds": states.seconds}


def load_encoder(folder: str | Path, *, random_seed: int | None = None) -> Network:
    """Load an encoder, or make the same one with random weights."""
    model = load_model(folder, "encoder")
    if random_seed is None:
        return model
    seed_everything(random_seed)
    tokenizer = model.require_tokenizer()
    fresh = type(model)(model.config)
    fresh.tokenizer = tokenizer
    return fresh


def is_tuned_once(trial: Trial, protocol: Protocol) -> bool:
    """Say whether one seed chooses the learning rate that the other seeds of a trial's method, task and rows take."""
    return trial.method.kind == "finetune" and protocol.tune_on == "first_seed" and len(protocol.rate_factors) > 1


def run_finetuning(
    trial: Trial, tables: Mapping[str, LabelledTable], data: Mapping[str, Any], context: RunContext
) -> Measured:
    """Fine-tune with each learning rate of the protocol; the best on the validation rows is measured.

    With ``tune_on: first_seed`` a later seed is trained once, with the rate that the first one chose.

    Raises:
        ResumeError: the first seed has no result.
        TrainingError: training diverged with every rate.
    """
    assert trial.method.finetuning is not None
    splits = LabelledSplits(tables["train"], tables["valid"], tables["test"], "the built task")
    base = context.protocol.rate_of(trial.method.finetuning)
    rates = [base * factor for factor in context.protocol.rate_factors]
    before = _rate_of_other_seed(trial, context) if is_tuned_once(trial, context.protocol) else None
    if before is not None:
        rates = [before["learning_rate"]]
    rate, (result, micro), tried = _best_rate(trial, splits, data, context, rates)
    scored = result.scored or _score_again(result, splits, context.protocol)
    scores = {name: scored[name].scores() for name in ("valid", "test")}
    report = result.report
    facts = {
        "learning_rate": rate,
        "rates": tried if before is None else before["rates"],
        "rates_tried_with_seed": trial.seed if before is None else before["rates_tried_with_seed"],
        "micro_batch_size": micro,
        "best_step": report["best_step"],
        "steps": report["steps"],
        "truncated": {name: counts["num_truncated"] for name, counts in report["splits"].items()},
        "max_tokens": report["splits"]["train"]["max_tokens"],
    }
    if not context.keep_model:
        for folder in context.folder.glob("rate*"):
            shutil.rmtree(folder, ignore_errors=True)
    return scores, report["cost"], facts


def _rate_of_other_seed(trial: Trial, context: RunContext) -> dict[str, Any] | None:
    """Find what a finished seed of the same method, task and rows says of its rate; None: this seed is to choose.

    Raises:
        ResumeError: another seed is to choose, and has no result.
    """
    for path in sorted(context.folder.parent.glob("seed*/result.json")):
        facts: dict[str, Any] = read_json(path)["details"]
        if path.parent != context.folder and facts["rates_tried_with_seed"] != trial.seed:
            return facts
    if trial.seed != context.first_seed:
        raise ResumeError(
            f"seed {context.first_seed} chooses the learning rate for all seeds and has no result; "
            "run the same command again when it can be computed."
        )
    return None


def _best_rate(
    trial: Trial, splits: LabelledSplits, data: Mapping[str, Any], context: RunContext, rates: Sequence[float]
) -> tuple[float, tuple[Any, int], dict[str, float | None]]:
    """Fine-tune with each rate; gives the best on the validation rows, its result, and the value of each.

    A rate that makes training diverge has the value None, and is never the best.

    Raises:
        TrainingError: training diverged with every rate.
    """
    best: tuple[float, float, tuple[Any, int]] | None = None
    tried: dict[str, float | None] = {}
    diverged: TrainingError | None = None
    for rate in rates:
        try:
            result, micro = _one_finetuning(trial, splits, data, context, rate)
        except TrainingError as error:
            diverged, tried[f"{rate:g}"] = error, None
            context.notice(f"{trial.task}: {trial.method.name} diverged with learning rate {rate:g}")
            continue
        metric = result.report["metric"]
        value = result.report["valid"]["metrics"].get(metric, {}).get("value")
        tried[f"{rate:g}"] = value = None if value is None or value != value else value
        height = float("-inf") if value is None else -value if metric in LOWER_IS_BETTER else value
        if best is None or height > best[0]:
            best = (height, rate, (result, micro))
    if best is None:
        assert diverged is not None
        raise diverged
    return best[1], best[2], tried


def _score_again(result: Any, splits: LabelledSplits, protocol: Protocol) -> dict[str, Scored]:
    """Predict with the saved model of a run that was finished by an earlier command."""
    settings = PredictOptions(
        strand=protocol.finetuned_strand,
        batch_tokens=protocol.batch_tokens,
        truncate=True,
        max_tokens=protocol.max_tokens,
    )
    model, tokenizer = load_model(result.model), load_tokenizer(result.model)
    limits = [value for value in (longest_input(model.config), protocol.max_tokens) if value is not None]
    settings = settings.changed(max_tokens=min(limits) if limits else None)
    tables = {"valid": splits.valid, "test": splits.test}
    return {
        name: score(model, table, tokenizer=tokenizer, settings=settings)
        for name, table in tables.items()
        if table is not None
    }


def _one_finetuning(
    trial: Trial, splits: LabelledSplits, data: Mapping[str, Any], context: RunContext, rate: float
) -> tuple[Any, int]:
    """Fine-tune at one learning rate, with smaller and smaller micro-batches if memory ends."""
    protocol = context.protocol
    start = protocol.micro_batch_size or protocol.batch_size
    remembered = context.folder / "micro_batch.json"
    if remembered.exists():
        start = read_json(remembered)["size"]
    used = start

    def train(size: int) -> Any:
        nonlocal used
        used = size
        write_json(remembered, {"size": size})
        config = _finetune_config(trial, data, context, rate, size)
        result = finetune(config, splits=splits, notice=logger.info)
        if result.stopped_by is not None:
            raise StoppedBySignal(result.stopped_by)
        return result

    return _with_less_memory(train, start, 1, context, "sequences of a micro-batch"), used


def _with_less_memory(work: Callable[[int], Any], size: int, smallest: int, context: RunContext, what: str) -> Any:
    """Do the work with ``size``; when memory ends, say so and try with half, down to ``smallest``."""
    import torch

    while True:
        try:
            return work(size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or size // 2 < smallest:
                raise
            size //= 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        context.notice(f"{context.folder.name}: out of memory; going on with {size} {what}, the same effective batch")


def _finetune_config(
    trial: Trial, data: Mapping[str, Any], context: RunContext, rate: float, micro: int
) -> FinetuneConfig:
    protocol = context.protocol
    while protocol.batch_size % micro:
        micro -= 1
    same = protocol.model_dump(
        include={"epochs", "batch_size", "patience", "strand", "precision", "max_tokens"}, exclude_none=True
    )
    here = {"seed": trial.seed, "device": context.device, "threads": context.threads, "tensorboard": False}
    values = {
        "output": context.folder / f"rate{rate:g}-micro{micro}",
        "model": {"path": trial.method.model, "init": trial.method.init, "pooling": protocol.pooling},
        "data": dict(data),
        "method": trial.method.finetuning or FinetuneMethod(),
        "memory": protocol.memory,
        "training": {**same, **here, "micro_batch_size": micro, "learning_rate": rate},
        "evaluation": {
            "strand": protocol.finetuned_strand,
            "resamples": 0,
            "baselines": False,
            "page": False,
            "predictions": "parquet",
            "batch_tokens": protocol.batch_tokens,
        },
    }
    return FinetuneConfig.model_validate(values)
