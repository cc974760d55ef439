"""Fine-tuning: labelled sequences and a pre-trained model in, a measured model folder out.

One function, `finetune`, resumes itself: called again with the same settings it goes on from the newest complete
checkpoint. The best checkpoint on the validation rows is measured once on the test rows.

Settings that nobody gave are chosen (`choose`): strand and epochs by the table, the rate by a short search. Each rate
is tried on a third of the epochs (or of the rows, where epochs are few), so that the search costs what the chosen run
costs. Only validation rows choose. Every trial is a run folder of its own below ``search``, so that an interrupted
search goes on where it stopped.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainingArguments

from longstrand.data.collate import Collator
from longstrand.data.labelled import label, target_scale
from longstrand.data.labelled_tokens import is_bio
from longstrand.data.splits import choose_rows
from longstrand.data.targets import Task
from longstrand.errors import ResumeError, TrainingError, UsageError, one_of
from longstrand.evaluation.metrics import LOWER_IS_BETTER, METRICS, PRIMARY
from longstrand.inference.loaded import fingerprint_input
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import longest_input
from longstrand.models.adapters import AdapterFolder, base_facts, is_wrapped, load_adapter_weights
from longstrand.models.checkpoint import load_model, save_checkpoint
from longstrand.models.heads import labelled
from longstrand.models.reading import Reading
from longstrand.models.tensors import fingerprint_weights
from longstrand.report.runs import write_looks_page, write_run_page
from longstrand.runtime import (
    Notice,
    fingerprint_file,
    generator,
    join_processes,
    model_folder,
    on_rank_0,
    provenance,
    rank,
    resolve_device,
    seed_everything,
)
from longstrand.tokenization.base import Tokenizer
from longstrand.tokenization.hub import load_tokenizer
from longstrand.training.curriculum import make_curriculum
from longstrand.training.examples import (
    LabelledSplits,
    Prepared,
    TrainingExamples,
    balanced_weights,
    check_strand,
    load_splits,
    open_cohort,
    tokenize,
)
from longstrand.training.measure import (
    Scored,
    fold_scale,
    make_report,
    score,
    start_at_mean,
    validation_numbers,
    write_predictions,
)
from longstrand.training.methods import apply_method, check_method, measured_cost, weights_of
from longstrand.training.run_folder import RunFolder, TrainingResult
from longstrand.training.settings import FinetuneConfig, TrainSettings
from longstrand.training.signals import load_signals, notices
from longstrand.training.trainer import LongstrandTrainer, split_batch, training_arguments

logger = logging.getLogger(__name__)

FACTORS = (0.3, 1.0, 3.0)
SEARCH_FOLDER = "search"
FEW_LABELS = 1000
SAME = 0.25
"""Scores of trials that differ by less than this, by the root of the validation rows, count as equal: half an error."""
TOTAL_WEIGHT = 0.2
"""Share of the Poisson loss of the sum beside the multinomial loss along the bins, as in Borzoi."""


def finetune(
    config: FinetuneConfig, *, notice: Notice = logger.info, splits: LabelledSplits | None = None
) -> TrainingResult:
    """Fine-tune a model on labelled sequences, or go on where an interrupted run stopped.

    Writes ``config.yaml``, ``metrics.jsonl``, ``metrics.csv``, ``model/`` (the best checkpoint), ``report.json`` and
    the predictions of the test rows into ``config.output``.

    Args:
        config: the settings.
        notice: receives sentences for the user before training: what kind of problem was found, how rows were split.
        splits: the rows that ``config.data`` names, if the caller has read (and perhaps thinned out) them already.

    Raises:
        LongstrandError: anything wrong with the settings, the labels, the model or the run folder.
    """
    training = config.training
    if training.threads:
        torch.set_num_threads(training.threads)
    device = resolve_device(training.device)
    join_processes(device)
    if rank() != 0:
        notice = logger.debug
    check_method(config.method)
    tokenizer = load_tokenizer(config.model.path)
    if splits is None:
        load = load_signals if config.data.tracks else load_splits
        splits = load(config.data, alphabet=None if config.data.exact_text else tokenizer.alphabet)
    notice(splits.task.in_words())
    notice(f"split: {', '.join(f'{len(table):,} {name}' for name, table in splits.items())}; {splits.origin}")
    for sentence in () if splits.signals is None else notices(splits.signals):
        notice(sentence)
    metric = training.metric or PRIMARY[splits.task.problem]
    one_of(metric, [*METRICS[splits.task.problem], "loss"], "metric")
    check_strand(splits.task, training.strand, config.evaluation.strand)
    if training.class_weights != "none" and splits.task.problem == "regression":
        raise UsageError("class_weights are for classes, but the problem is regression; leave them out.")
    run = RunFolder.open(config.output, config)
    try:
        run.check_inputs(_fingerprints(config, tokenizer, splits))
        if run.report is not None:
            return TrainingResult(run.path, run.path / "model", run.report)
        if splits.signals is not None and config.evaluation.page:
            page = on_rank_0(lambda: write_looks_page(run.path, splits.signals.facts()))  # type: ignore[union-attr]
            notice(f"the tracks: {page}")
        chosen = choose(
            config, splits, num_parameters=_num_parameters(config.model.path), train=_try_settings, notice=notice
        )
        if chosen.stopped_by is not None:
            return TrainingResult(run.path, None, {}, chosen.stopped_by)
        config, training = chosen.config, chosen.config.training
        model = make_model(config, splits, tokenizer)
        limit = _limit(longest_input(model.config), training.max_tokens)
        tokenized = {
            name: tokenize(table, tokenizer, limit, on_long=training.on_long) for name, table in splits.items()
        }
        counts = splits.task.bin_bases is not None and _bin_loss(config, splits) != "squared"
        scaled = splits.task.problem == "regression" and not counts
        scale = target_scale(splits.train) if scaled else None
        return _run(
            config, run, model, Prepared(splits, tokenized, tokenizer, limit, scale, metric, chosen.search), device
        )
    finally:
        run.close()


def _bin_loss(config: FinetuneConfig, splits: LabelledSplits) -> str:
    return config.data.bin_loss if splits.signals is None else splits.signals.loss


def _try_settings(config: FinetuneConfig, splits: LabelledSplits) -> TrainingResult:
    return finetune(config, splits=splits, notice=logger.debug)


def _num_parameters(model: Path) -> int:
    """Estimate the number of weights from the size of their files."""
    folder = model_folder(model)
    return sum(path.stat().st_size for path in [*folder.glob("*.safetensors"), *folder.glob("*.bin")]) // 4


def make_model(config: FinetuneConfig, splits: LabelledSplits, tokenizer: Tokenizer) -> Any:
    """Load the model with a fresh head for the task, and choose the weights that are trained.

    With ``init: random``, all weights are fresh.

    Raises:
        CheckpointError, TokenizerError: the folder is damaged, or its tokenizer is not the model's.
    """
    task, settings = splits.task, config.model
    kind = "bin" if task.bin_bases is not None else "token" if task.problem == "token" else "sequence"
    head: dict[str, Any] = {
        "problem": "single_label" if task.problem == "token" else task.problem,
        "num_outputs": task.num_outputs,
        "class_names": list(task.names),
        "pooling": settings.pooling,
        "form": settings.form,
    }
    if task.bin_bases is not None:
        loss = _bin_loss(config, splits)
        head["problem"] = "regression" if loss == "squared" else "counts"
        head |= {"total_weight": TOTAL_WEIGHT} if loss == "multinomial" else {}
        if splits.signals is not None:
            head |= {"strand_pairs": splits.signals.partners, "transforms": splits.signals.transforms()}
        head |= {"bin_bases": task.bin_bases, "bin_token_id": next(iter(tokenizer.template.suffix), None)}
    if config.training.class_weights == "balanced":
        name = "pos_weight" if task.problem == "multi_label" else "class_weights"
        head[name] = balanced_weights(splits.train)
    seed_everything(config.training.seed)
    changes: dict[str, Any] = {} if settings.dropout is None else {"hidden_dropout": settings.dropout}
    if config.memory is not None:
        changes["memory"] = config.memory.model_settings()
        changes["memory"] |= {} if task.bin_bases is None else {"bin_bases": task.bin_bases}
    model = load_model(settings.path, kind, new_head=head, tokenizer=tokenizer, changes=changes)
    if settings.init == "random":
        seed_everything(config.training.seed)
        model = type(model)(model.config)
    if head["problem"] == "counts":
        start_at_mean(model, splits.train)
    return apply_method(model, config.method, base=settings.path)


def _run(config: FinetuneConfig, run: RunFolder, model: Any, data: Prepared, device: torch.device) -> TrainingResult:
    training = config.training
    examples = TrainingExamples(
        data.splits.train,
        data.tokenized["train"],
        data.tokenizer,
        batch_size=training.batch_size,
        epochs=training.epochs,
        seed=training.seed,
        strand=training.strand,
        limit=data.limit,
        scale=data.scale,
        cohort=open_cohort(config.data, data.splits.train),
        alphabet=None if config.data.exact_text else data.tokenizer.alphabet,
        signals=data.splits.signals,
    )
    settings = PredictOptions(
        strand=config.evaluation.strand,
        batch_tokens=config.evaluation.batch_tokens,
        precision=training.precision,
        truncate=True,
        max_tokens=data.limit,
        exact_text=config.data.exact_text,
        scale="trained",
    )
    measure = partial(score, tokenizer=data.tokenizer, settings=settings)
    per_token, curriculum = data.splits.task.problem == "token", None
    if config.memory is not None:
        curriculum = make_curriculum(
            config.memory, model.config.memory, data.tokenizer, seed=training.seed, per_token=per_token
        )
    trainer = FinetuneTrainer(
        run=run,
        title="fine-tuning",
        training=training,
        evaluate=lambda net: validation_numbers(measure(net, data.splits.valid, scale=data.scale)),
        curriculum=curriculum,
        steps_per_epoch=examples.num_batches,
        model=model,
        args=_arguments(run.path, training, examples, data.metric, device),
        train_dataset=examples,
        data_collator=Collator(data.tokenizer.pad_token_id or 0, per_token=per_token, pack=training.pack),
    )
    trainer.add_callback(StopEarly(trainer, data.metric, training.patience))
    with measured_cost(str(device)) as cost:
        if not _is_trained(run, trainer, data.metric, training.patience):
            trainer.train_or_resume()
    if trainer.stopped_by is not None and not _is_trained(run, trainer, data.metric, training.patience):
        return TrainingResult(run.path, None, {}, trainer.stopped_by)
    scored: dict[str, Scored] = {}
    report = on_rank_0(lambda: _finish(config, run, trainer, data, measure, cost, scored))
    return TrainingResult(run.path, run.path / "model", report, scored=scored)


def _finish(
    config: FinetuneConfig,
    run: RunFolder,
    trainer: FinetuneTrainer,
    data: Prepared,
    measure: Callable[..., Scored],
    cost: dict[str, Any],
    scored: dict[str, Scored],
) -> dict[str, Any]:
    """Take the best checkpoint, measure it (filling ``scored``), save it, report."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    best_step = _load_best(run, model, trainer.metrics_log.rows(), data.metric)
    if data.scale is not None:
        fold_scale(model, data.scale)
    scored |= {name: measure(model, table) for name, table in data.splits.items() if name != "train"}
    if "test" in scored:
        write_predictions(scored["test"], run.path / f"predictions_test.{config.evaluation.predictions}")
    report = make_report(config, data, scored, rows=trainer.metrics_log.rows(), best_step=best_step)
    report |= {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "cost": weights_of(model) | cost,
        "settings": config.model_dump(mode="json"),
        "inputs": _fingerprints(config, data.tokenizer, data.splits),
        "provenance": provenance(),
    }
    metrics: dict[str, Any] = {name: report[name]["metrics"] for name in ("valid", "test") if name in report}
    save_checkpoint(
        AdapterFolder(model) if is_wrapped(model) else model,
        data.tokenizer,
        run.path / "model",
        provenance=report["provenance"]
        | {"task": report["task"]}
        | ({"base": base_facts(config.model.path)} if is_wrapped(model) else {}),
        metrics=metrics,
        reading=_reading(config, data),
    )
    if config.evaluation.page:
        write_run_page(run.path, report, trainer.metrics_log.rows())
    run.finish(report)
    shutil.rmtree(run.path / SEARCH_FOLDER, ignore_errors=True)
    for folder in run.checkpoints():
        run.remove(folder)
    return report


def _reading(config: FinetuneConfig, data: Prepared) -> Reading:
    """Record how the rows were read, for whoever reads others with the model."""
    pairs, task = list(zip(data.splits.train.sequences, data.tokenized["train"].encodings)), data.splits.task
    return Reading(
        max_tokens=data.limit,
        longest_bases=max(min(len(text), int(np.max(encoding.offsets, initial=0))) for text, encoding in pairs),
        window=config.data.window if data.splits.signals is None else data.splits.signals.window or None,
        strand=config.evaluation.strand or "+",
        directed=is_bio(task.names),
        exact_text=config.data.exact_text,
        pair=config.data.columns.pair is not None,
        truncate=any(tokens.num_truncated for tokens in data.tokenized.values()),
        class_names=task.names,
    )


class FinetuneTrainer(LongstrandTrainer):
    """A `LongstrandTrainer` that does not count missing float labels as targets."""

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Any:
        counted = [{**batch, "labels": torch.where(labelled(batch["labels"]), 0, -100)} for batch in batch_samples]
        return super()._get_num_items_in_batch(counted, device)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Keep the checkpoint that `best_row` will ask for."""
        metric = str(self.args.metric_for_best_model).removeprefix("eval_")
        best = on_rank_0(lambda: best_row(self.metrics_log.rows(), metric))
        if best is not None:
            self.state.best_metric, self.state.best_global_step = best[f"eval_{metric}"], best["step"]
        return best is not None and best["step"] == self.state.global_step


class StopEarly(TrainerCallback):
    """Stops when the metric has not improved for a number of evaluations; stateless, so a resumed run agrees."""

    def __init__(self, trainer: LongstrandTrainer, metric: str, patience: int) -> None:
        self._log, self._metric, self._patience = trainer.metrics_log, metric, patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at all evaluations so far; one process decides for all."""
        rows = on_rank_0(self._log.rows)
        if not np.isfinite(next((row["eval_loss"] for row in reversed(rows) if "eval_loss" in row), 0.0)):
            raise TrainingError(
                f"the validation loss is not a finite number after step {state.global_step}: training diverged; "
                "lower training.learning_rate and use another output."
            )
        if is_exhausted(rows, self._metric, self._patience):
            control.should_training_stop = True


def best_row(rows: list[dict[str, Any]], metric: str) -> dict[str, Any] | None:
    """Find the evaluation with the best metric (of equal ones that with the lower loss); None without any."""
    evaluated = [row for row in rows if f"eval_{metric}" in row]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    return max(evaluated, key=lambda row: (sign * row[f"eval_{metric}"], -row["eval_loss"]), default=None)


def is_exhausted(rows: list[dict[str, Any]], metric: str, patience: int) -> bool:
    """Say whether ``patience`` evaluations (0: never) brought neither a better metric nor a lower loss.

    The loss falls before the first metric moves: a model that still gives one answer to all is not given up.
    """
    evaluated = [row for row in rows if f"eval_{metric}" in row]
    last = max((evaluated.index(best) for by in (metric, "loss") if (best := best_row(evaluated, by))), default=0)
    return patience > 0 and len(evaluated) - 1 - last >= patience


def _is_trained(run: RunFolder, trainer: FinetuneTrainer, metric: str, patience: int) -> bool:
    """Say whether a complete checkpoint exists at or after the step where training ends."""

    def look() -> bool:
        newest = run.newest_checkpoint()
        if newest is None:
            return False
        step = int(newest.name[11:])
        rows = [row for row in trainer.metrics_log.rows() if row.get("step", 0) <= step]
        return step >= trainer.args.max_steps or is_exhausted(rows, metric, patience)

    return on_rank_0(look)


def _load_best(run: RunFolder, model: Any, rows: list[dict[str, Any]], metric: str) -> int:
    """Load the weights of the best evaluation into the model and give its step."""
    best = best_row(rows, metric)
    folder = None if best is None else run.path / f"checkpoint-{best['step']}"
    if folder is None or not folder.is_dir():
        folder = run.newest_checkpoint()
    if folder is None:
        raise ResumeError(f"{run.path}: no complete checkpoint is left to measure; delete the folder and start again.")
    if is_wrapped(model):
        load_adapter_weights(model, folder)
    else:
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return int(folder.name[11:])


def _arguments(
    folder: Path, training: TrainSettings, examples: TrainingExamples, metric: str, device: torch.device
) -> TrainingArguments:
    steps = len(examples) // examples.batch_size
    every = max(1, examples.num_batches // training.evaluations_per_epoch)
    return training_arguments(
        folder,
        training,
        split_batch(examples.batch_size, training.micro_batch_size),
        device,
        max_steps=steps,
        warmup_steps=int(training.warmup_fraction * steps),
        logging_steps=min(training.log_every, every),
        eval_steps=every,
        save_steps=every,
        metric_for_best_model=f"eval_{metric}",
        greater_is_better=metric not in LOWER_IS_BETTER,
    )


def _limit(positions: int | None, asked: int | None) -> int | None:
    """Give the most tokens of an input: what the model can read, or less if asked."""
    known = [value for value in (positions, asked) if value is not None]
    return min(known) if known else None


def _fingerprints(config: FinetuneConfig, tokenizer: Tokenizer, splits: LabelledSplits) -> dict[str, Any]:
    """Fingerprints of the model's weights, the tokenizer and the tables."""
    files = dict.fromkeys(table.raw.source for _, table in splits.items())
    return {
        "model": fingerprint_weights(config.model.path),
        "tokenizer": tokenizer.fingerprint,
        "tables": {name: fingerprint_file(Path(name)) for name in files},
        "genome": fingerprint_file(config.data.fasta) if config.data.fasta is not None else None,
        "tracks": {str(path): fingerprint_input(path) for path in config.data.tracks},
        **({"variants": fingerprint_file(config.data.variants.path)} if config.data.variants else {}),
    }


@dataclass(frozen=True)
class Chosen:
    """The complete settings, and what the search tried (None: everything was given).

    ``stopped_by`` names the signal that ended the search before its end.
    """

    config: FinetuneConfig
    search: dict[str, Any] | None = None
    stopped_by: str | None = None


def default_strand(task: Task, *, has_tracks: bool = False) -> str:
    """Give ``both`` for labels of whole sequences and tracks, ``+`` for labels along them that may have a direction."""
    along = task.problem == "token" or (task.bin_bases is not None and not has_tracks)
    return "+" if along or is_bio(task.names) else "both"


def default_epochs(num_rows: int, batch_size: int) -> int:
    """Give the most epochs: 30 up to 1,000 rows, falling with the root of their number to 3, 300 steps at least."""
    enough = math.ceil(300 / max(1, num_rows // batch_size))
    return max(3, min(30, round(30 * math.sqrt(1000 / num_rows))), min(enough, 100))


def default_rates(num_parameters: int, method: str) -> tuple[float, ...]:
    """Give the rates to try: around 1e-3 up to 5 M weights, lower with their root; adapters and heads 3 times that."""
    base = 1e-3 * min(1.0, math.sqrt(5e6 / max(1, num_parameters))) * (1 if method == "full" else 3)
    return tuple(float(f"{base * factor:.1g}") for factor in FACTORS)


def complete(config: FinetuneConfig, splits: LabelledSplits) -> FinetuneConfig:
    """Fill in strand, epochs and patience; the rate may still be open."""
    training, evaluation = config.training, config.evaluation
    strand = training.strand or evaluation.strand or default_strand(splits.task, has_tracks=splits.signals is not None)
    epochs = training.epochs or default_epochs(len(splits.train), training.batch_size)
    patience = max(3, epochs // 3) if training.patience is None else training.patience
    filled = training.model_copy(update={"strand": strand, "epochs": epochs, "patience": patience})
    measured = evaluation.model_copy(update={"strand": evaluation.strand or strand})
    return config.model_copy(update={"training": filled, "evaluation": measured})


def choose(
    config: FinetuneConfig,
    splits: LabelledSplits,
    *,
    num_parameters: int,
    train: Callable[[FinetuneConfig, LabelledSplits], Any],
    notice: Notice,
) -> Chosen:
    """Complete the settings, trying rates on the validation rows if none is given.

    Args:
        config: the settings as given.
        splits: the rows; those of the test are not looked at.
        num_parameters: weights of the model.
        train: fine-tunes with complete settings; see `longstrand.training.finetune.finetune`.
        notice: receives sentences for the user.

    Raises:
        TrainingError: training diverged with every rate.
    """
    full = complete(config, splits)
    if full.training.learning_rate is not None:
        return Chosen(full)
    rates = default_rates(num_parameters, full.method.name)
    epochs, rows = max(1, full.training.epochs // 3), splits.train.raw
    share = min(1.0, full.training.epochs / 3 / epochs)
    fewer_rows = splits.train
    if share < 1 and splits.signals is not None:
        some = generator(config.data.split_seed, 0, "subset").permutation(len(rows))
        fewer_rows = splits.train.take(some[: max(2, round(share * len(rows)))].tolist())
    elif share < 1:
        rows = choose_rows(rows, max(2, round(share * len(rows))), seed=config.data.split_seed)
        fewer_rows = label(rows, splits.task)
    fewer = replace(splits, train=fewer_rows, test=None)
    rows = fewer_rows.raw
    notice(
        f"trying {len(rates)} learning rates ({', '.join(f'{rate:g}' for rate in rates)}) for {epochs} epochs each on "
        f"{len(rows):,} rows; --rate skips this"
    )
    if len(splits.train) < FEW_LABELS and config.model.init == "pretrained":
        notice(
            f"only {len(splits.train):,} training rows: 'longstrand probe' is quicker and often as good; try it first"
        )
    trials: list[dict[str, Any]] = []
    for rate in rates:
        trial = _trial(full, rate, epochs)
        try:
            result = train(trial, fewer)
        except TrainingError:
            trials.append({"learning_rate": rate, "epochs": epochs, "score": None})
            continue
        if result.stopped_by is not None:
            return Chosen(full, None, result.stopped_by)
        trials.append({"learning_rate": rate, "epochs": epochs, **_outcome(result.report)})
    able = [trial for trial in trials if trial["score"] is not None]
    if not able:
        raise TrainingError(f"{config.output}: training diverged with every rate of {rates}; give a lower --rate.")
    best = _best(able, len(splits.valid))
    training = full.training.model_copy(update={"learning_rate": best["learning_rate"]})
    chosen = {"learning_rate": best["learning_rate"], "epochs": training.epochs, "strand": training.strand}
    shown = ", ".join(f"{trial['learning_rate']:g}: {_number(trial['score'])}" for trial in trials)
    notice(f"chosen: learning rate {best['learning_rate']:g}, {training.epochs} epochs at most (validation: {shown})")
    search = {"trials": trials, "chosen": chosen, "metric": best["metric"], "rows": len(rows)}
    return Chosen(full.model_copy(update={"training": training}), search)


def _trial(full: FinetuneConfig, rate: float, epochs: int) -> FinetuneConfig:
    """Give the settings of a trial: nothing is measured but the validation rows."""
    output = Path(full.output) / SEARCH_FOLDER / f"rate-{rate:g}"
    training = full.training.model_copy(
        update={"learning_rate": rate, "epochs": epochs, "patience": 0, "tensorboard": False}
    )
    evaluation = full.evaluation.model_copy(update={"resamples": 0, "baselines": False, "page": False})
    return full.model_copy(update={"output": output, "training": training, "evaluation": evaluation})


def _outcome(report: dict[str, Any]) -> dict[str, Any]:
    """Score a trial by the mean of its three best evaluations: one alone is mostly luck on few validation rows."""
    metric = report["metric"]
    values = sorted((row[f"eval_{metric}"] for row in report["curve"]), reverse=metric not in LOWER_IS_BETTER)[:3]
    return {
        "metric": metric,
        "score": sum(values) / len(values),
        "loss": min(row["eval_loss"] for row in report["curve"]),
        "collapsed": report["collapsed"],
        "steps": report["steps"],
        "seconds": report["cost"]["seconds"],
    }


def _best(trials: list[dict[str, Any]], num_rows: int) -> dict[str, Any]:
    """Choose a trial by its score; what so few validation rows cannot tell apart is told apart by the loss."""
    alive = [trial for trial in trials if not trial["collapsed"]] or trials
    is_lower = trials[0]["metric"] in LOWER_IS_BETTER  # in units of the labels, as the loss
    key = (lambda trial: -trial["score"]) if is_lower else (lambda trial: trial["score"])
    least = max(map(key, alive)) - (0.0 if is_lower else SAME / math.sqrt(num_rows))
    return min((trial for trial in alive if key(trial) >= least), key=itemgetter("loss"))


def _number(score: float | None) -> str:
    return "diverged" if score is None else f"{score:.3f}"
