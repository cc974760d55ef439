"""Masked-LM pre-training: genomes in, a model folder out.

One function, `pretrain`, resumes itself: called again with the same settings it goes on from the newest complete
checkpoint and ends with bit-identical weights (same device, threads, workers and world size).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from longstrand.data.cohort import Cohort
from longstrand.data.collate import Collator
from longstrand.data.corpus import (
    NOTHING,
    WHOLE,
    GenomeEntry,
    expand,
    one_per_genus,
    open_corpus,
    tokenizer_pieces,
    write_sequences,
)
from longstrand.data.examples import MaskedExamples, TokenBudget, measure_budget
from longstrand.data.genomes import GenomeSet
from longstrand.data.references import reference_losses
from longstrand.data.regions import check_contigs, choose_contigs
from longstrand.data.rows import read_intervals
from longstrand.data.windows import MIN_WINDOW, EvaluationWindows, HoldOut, TrainingWindows
from longstrand.errors import InputError, UsageError
from longstrand.genome.intervals import Interval
from longstrand.genome.regions import with_names_of
from longstrand.inference.predict import longest_input
from longstrand.models.checkpoint import load_model, save_checkpoint
from longstrand.models.config import RecurrentMemory, preset
from longstrand.models.memory.losses import counted_batch
from longstrand.models.pretrained import LongstrandForMaskedLM
from longstrand.models.reading import Reading
from longstrand.report.runs import write_run_page
from longstrand.runtime import (
    IGNORED_LABEL,
    fingerprint_bytes,
    fingerprint_file,
    join_processes,
    model_folder,
    on_rank_0,
    provenance,
    rank,
    read_json,
    resolve_device,
    seed_everything,
    world_size,
)
from longstrand.tokenization.base import Tokenizer
from longstrand.tokenization.hub import load_tokenizer
from longstrand.tokenization.kmer import make_kmer
from longstrand.tokenization.train import train_bpe
from longstrand.training.curriculum import make_curriculum, row_tokens
from longstrand.training.engine import parallel_arguments, plain_model
from longstrand.training.run_folder import RunFolder, TrainingResult
from longstrand.training.settings import DataConfig, HoldOutConfig, PretrainConfig
from longstrand.training.throughput import ThroughputMeter, measured_peak, training_flops_per_token
from longstrand.training.trainer import LongstrandTrainer, split_batch, training_arguments

logger = logging.getLogger(__name__)

Collate = Callable[[Sequence[Any]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class PretrainData:
    """Training and hold-out examples of the same tokenizer, and how they were cut."""

    train: MaskedExamples
    evaluation: MaskedExamples
    budget: TokenBudget
    holdout: Any
    genomes: GenomeSet


def pretrain(config: PretrainConfig) -> TrainingResult:
    """Train a masked language model, or go on where an interrupted run stopped.

    Raises:
        LongstrandError: anything wrong with the settings, the genomes, the tokenizer or the run folder.
    """
    training = config.training
    if training.threads:
        torch.set_num_threads(training.threads)
    device = resolve_device(training.device)
    join_processes(device)
    run = RunFolder.open(config.output, config)
    try:
        genomes, holdout = read_genomes(config.data, run.path, min_holdout=4 * config.training.max_tokens)
        tokenizer = make_tokenizer(config, genomes, holdout, run.path)
        run.check_inputs(_fingerprints(genomes, holdout, tokenizer, config))
        if run.report is not None:
            return TrainingResult(run.path, run.path / "model", run.report)
        return _run(config, run, make_data(config, genomes, holdout, tokenizer), tokenizer, device)
    finally:
        run.close()


def read_genomes(data: DataConfig, folder: Path, *, min_holdout: int) -> tuple[GenomeSet, dict[str, HoldOut]]:
    """Open the genomes of the settings, and choose what is held out.

    Args:
        data: the settings.
        folder: where sequences of tables are kept.
        min_holdout: smallest useful hold-out of a genome in bases.

    Raises:
        LongstrandError: files are missing, the same, or not what the settings say; nothing is held out.
    """
    if data.sequences:
        made = on_rank_0(lambda: write_sequences(data.sequences, folder, column=data.sequence_column))
        entries = [GenomeEntry(fasta=made, species="sequences")]
    else:
        entries = expand(data.genomes)
    if data.one_per_genus:
        entries = one_per_genus(entries)
    if data.order == "epoch" and len({entry.weight for entry in entries}) > 1:
        raise UsageError("order epoch reads every base equally often; with different weights set data.order=random.")
    genomes = open_corpus(entries, sampling=data.sampling, contigs=data.contigs)
    return genomes, hold_out(data.hold_out, entries, genomes, min_bases=min_holdout)


def make_tokenizer(config: PretrainConfig, genomes: GenomeSet, holdout: dict[str, HoldOut], folder: Path) -> Tokenizer:
    """Load the tokenizer of the settings or of the model to start from, or make one in ``folder/tokenizer``."""
    settings = config.tokenizer
    if (given := settings.path or config.model.start_from) is not None:
        return load_tokenizer(model_folder(given))
    made = folder / "tokenizer"

    def make() -> None:
        if (made / "tokenizer_config.json").exists():
            return
        if settings.kind == "kmer":
            tokenizer = make_kmer(settings.k, overlapping=settings.overlapping)
        else:
            pieces = tokenizer_pieces(
                genomes, num_bases=settings.training_bases, seed=config.training.seed, holdout=holdout,
                evenly=settings.evenly,
            )  # fmt: skip
            tokenizer = train_bpe(pieces, vocab_size=settings.vocab_size)
        tokenizer.save(made)

    on_rank_0(make)
    return load_tokenizer(made)


def make_data(
    config: PretrainConfig, genomes: GenomeSet, holdout: dict[str, HoldOut], tokenizer: Tokenizer
) -> PretrainData:
    """Lay out the training and hold-out examples."""
    data, training = config.data, config.training
    max_tokens = window_tokens(config, tokenizer)
    budget = measure_budget(genomes, tokenizer, max_tokens=max_tokens, holdout=holdout, sentences=data.sentences)
    num_bases, stride = data.num_bases or budget.num_bases, min(budget.stride, data.num_bases or budget.stride)
    common: dict[str, Any] = {"num_bases": num_bases, "holdout": holdout}
    chunks = stride
    if data.start or data.overlap is not None:
        chunks = num_bases + data.start - (data.overlap or 0)
        if chunks < MIN_WINDOW:
            raise UsageError(f"data.overlap {data.overlap} leaves nothing of chunks of {num_bases + data.start} bases.")
        budget = replace(budget, repeated=max(0.0, stride * (1 + budget.repeated) / chunks - 1))
    common |= {"sentences": data.sentences, "alphabet": tokenizer.alphabet}
    people = data.variants
    windows = TrainingWindows(
        genomes,
        num_samples=training.steps * training.batch_size,
        seed=training.seed,
        strand=data.strand,
        order=data.order,
        start=data.start,
        stride=chunks,
        cohort=people and Cohort.open(genome=genomes.open(0), **dict(people)),
        **common,
    )
    fixed = EvaluationWindows(
        genomes, strand="both", max_windows=training.eval_windows, seed=0, stride=stride, **common
    )
    examples = partial(MaskedExamples, tokenizer=tokenizer, max_tokens=max_tokens)
    # Measured under [MASK] alone: kept and random tokens would let a model copy its input, and no count table can.
    hidden = config.masking.model_copy(update={"mask": 1.0, "random": 0.0})
    train = examples(windows, masking=config.masking, seed=training.seed)
    return PretrainData(train, examples(fixed, masking=hidden, seed=0), budget, holdout, genomes)


def window_tokens(config: PretrainConfig, tokenizer: Tokenizer) -> int:
    """Give the tokens of the longest window, special ones included: with memory, those of its last stage."""
    if config.memory is None:
        return config.training.max_tokens
    settings = RecurrentMemory(**memory_settings(config, tokenizer))
    return row_tokens(settings, tokenizer, config.memory.most_segments or 1)


def memory_settings(config: PretrainConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Give the memory settings of the model that is trained: its own, what the run changes, its special tokens."""
    assert config.memory is not None
    special = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    start = config.model.start_from
    stored = read_json(start / "config.json").get("memory") if start and (start / "config.json").is_file() else None
    return {**special, **(stored or {}), **config.memory.model_settings()}


def make_model(config: PretrainConfig, tokenizer: Tokenizer) -> LongstrandForMaskedLM:
    """Make a fresh model from a preset, seeded, or load the checkpoint to start from; with memory, a fresh memory.

    Raises:
        TokenizerError: the checkpoint was trained with another vocabulary.
    """
    seed_everything(config.training.seed)
    settings = config.model
    changes = {} if config.memory is None else {"memory": memory_settings(config, tokenizer)}
    if settings.start_from is not None:
        return load_model(settings.start_from, head="masked_lm", tokenizer=tokenizer, changes=changes)
    length = config.memory.segment_length if config.memory is not None else config.training.max_tokens
    fields: dict[str, Any] = {"max_position_embeddings": length, "type_vocab_size": 0, **settings.settings, **changes}
    fields.setdefault("heads", {"masked_lm": {"kind": "masked_lm"}})
    chosen = preset(settings.preset, vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_token_id, **fields)
    return LongstrandForMaskedLM(chosen)


def _run(
    config: PretrainConfig, run: RunFolder, data: PretrainData, tokenizer: Tokenizer, device: torch.device
) -> TrainingResult:
    training = config.training
    model = make_model(config, tokenizer)
    limit = longest_input(model.config)
    if config.memory is None and limit is not None and training.max_tokens > limit:
        raise InputError(
            f"training.max_tokens is {training.max_tokens}, but the model has only {limit} positions; use at most that."
        )
    collate = Collator(tokenizer.pad_token_id or 0, pack=training.pack)
    micro, accumulation = split_batch(training.batch_size, training.micro_batch_size)
    evaluate = hold_out_evaluation(
        data.evaluation, collate, bases_per_id=tokenizer.bases_per_id, batch_size=micro, device=device
    )
    curriculum = None
    if config.memory is not None:
        curriculum = make_curriculum(
            config.memory, model.config.memory, tokenizer, seed=training.seed, per_token=True, masked=True
        )
    trainer = LongstrandTrainer(
        run=run,
        title="pre-training",
        training=training,
        evaluate=evaluate,
        keep=training.keep_checkpoints,
        throughput=_meter(model, config, device),
        curriculum=curriculum,
        model=model,
        args=training_arguments(
            run.path,
            training,
            (micro, accumulation),
            device,
            max_steps=training.steps,
            warmup_steps=min(500, training.steps // 10) if training.warmup_steps is None else training.warmup_steps,
            adam_beta2=training.adam_beta2,
            adam_epsilon=training.adam_epsilon,
            torch_compile=training.compile,
            gradient_checkpointing=training.gradient_checkpointing,
            **parallel_arguments(training),
            logging_steps=training.log_every,
            eval_steps=training.eval_every,
            save_steps=training.save_every,
        ),
        train_dataset=data.train,
        data_collator=collate,
        callbacks=[Snapshots(training.snapshots, run.path / "snapshots", tokenizer)],
    )
    resumed_from = on_rank_0(run.newest_checkpoint)
    trainer.train_or_resume()
    step = int(resumed_from.name[11:]) if resumed_from else 0
    if trainer.stopped_by is not None and trainer.state.global_step < training.steps:
        return TrainingResult(run.path, None, {}, trainer.stopped_by, step)
    whole = plain_model(trainer.model)
    report = on_rank_0(lambda: _finish(config, run, trainer, data, (whole, tokenizer)))
    return TrainingResult(run.path, run.path / "model", report, None, step)


def _finish(
    config: PretrainConfig,
    run: RunFolder,
    trainer: LongstrandTrainer,
    data: PretrainData,
    trained: tuple[LongstrandForMaskedLM, Tokenizer],
) -> dict[str, Any]:
    """Save the model, write and give the report."""
    report = _report(config, data, trainer, trained[1])
    reading = _reading(config, data, trained[1])
    save_checkpoint(*trained, run.path / "model", provenance=report, metrics=report["hold_out"], reading=reading)
    write_run_page(run.path, report, trainer.metrics_log.rows())
    run.finish(report)
    for folder in run.checkpoints():
        run.remove(folder)
    return report


def _reading(config: PretrainConfig, data: PretrainData, tokenizer: Tokenizer) -> Reading:
    """Record how much the model saw at a time; in words of several lengths: what its tokens spell on average."""
    tokens = config.training.max_tokens - tokenizer.num_special_tokens()
    return Reading(longest_bases=max(1, round(data.budget.bases_per_token * tokens)))


class Snapshots(TrainerCallback):
    """Keeps the model as a loadable folder after chosen steps, for learning curves."""

    def __init__(self, steps: tuple[int, ...], folder: Path, tokenizer: Tokenizer) -> None:
        self._steps, self._folder, self._tokenizer = set(steps), folder, tokenizer

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Save if this is one of the steps."""
        if state.global_step not in self._steps:
            return
        whole, folder = plain_model(model), self._folder / f"step-{state.global_step}"
        if rank() == 0:
            save_checkpoint(whole, self._tokenizer, folder, provenance={"step": state.global_step})


def _meter(model: LongstrandForMaskedLM, config: PretrainConfig, device: torch.device) -> ThroughputMeter:
    matrices = sum(
        weight.numel() for name, weight in model.named_parameters() if weight.dim() == 2 and "embeddings" not in name
    )
    shape = model.config
    flops = training_flops_per_token(
        matrix_parameters=matrices,
        num_layers=shape.num_hidden_layers,
        hidden_size=shape.hidden_size,
        length=config.training.max_tokens if config.memory is None else config.memory.segment_length,
        head_parameters=shape.vocab_size * shape.hidden_size,
        head_share=config.masking.probability,
    )
    dtype = torch.bfloat16 if config.training.precision == "bf16" else torch.float32
    return ThroughputMeter(flops, measured_peak(device, dtype) * world_size())


def _report(
    config: PretrainConfig, data: PretrainData, trainer: LongstrandTrainer, tokenizer: Tokenizer
) -> dict[str, Any]:
    rows = [row for row in trainer.metrics_log.rows() if "eval_loss" in row]
    final = {name.removeprefix("eval_"): value for name, value in rows[-1].items() if name.startswith("eval_")}
    references: dict[str, Any] = {}
    if config.training.references:
        references = reference_losses(
            data.genomes, tokenizer, data.evaluation, holdout=data.holdout, sentences=config.data.sentences
        )
    windows = data.train.windows
    return {
        "kind": "pretraining",
        "hold_out": final,
        "references": references,
        "tokens_seen": trainer.counts["tokens"],
        "bases_seen": trainer.counts["bases"],
        "steps": trainer.state.global_step,
        "parameters": sum(weight.numel() for weight in trainer.model.parameters()),
        "bases_per_token": data.budget.bases_per_token,
        "epoch_overlap": data.budget.repeated,
        "hold_out_bases": int(data.evaluation.windows.regions.num_bases),
        "training_bases": int(windows.regions.num_bases),
        "short_window_share": windows.short_share,
        "genome_shares": windows.genome_shares,
        "settings": config.model_dump(mode="json"),
        "inputs": _fingerprints(data.genomes, data.holdout, tokenizer, config),
        "provenance": provenance(),
    }


def hold_out(
    settings: HoldOutConfig, entries: Sequence[GenomeEntry], genomes: GenomeSet, *, min_bases: int
) -> dict[str, HoldOut]:
    """Hold out what entries and settings name; genomes in which they name nothing give ``fraction`` of their bases."""
    intervals: tuple[Interval, ...] = ()
    if settings.intervals is not None:
        contigs = {name for number in range(len(entries)) for name in genomes.lengths(number)}
        intervals = tuple(with_names_of(read_intervals(settings.intervals), contigs).intervals)
    named = {*settings.contigs, *(interval.chrom for interval in intervals)}
    chosen, known, faults = {}, set[str](), list[str]()
    for number, entry in enumerate(entries):
        lengths = genomes.lengths(number)
        if not lengths:
            faults.append(f"{entry.name}: data.contigs leaves no contig of it.")
        if entry.hold_out == (NOTHING,) or not lengths:
            continue
        known |= named and set(lengths)
        if entry.hold_out is not None:
            contigs = tuple(lengths) if entry.hold_out == (WHOLE,) else entry.hold_out
            check_contigs(lengths, contigs, f"hold_out of {entry.name}: contig")
            chosen[entry.name] = HoldOut(contigs=contigs)
        elif named & set(lengths):
            chosen[entry.name] = HoldOut(
                contigs=tuple(name for name in settings.contigs if name in lengths),
                intervals=tuple(interval for interval in intervals if interval.chrom in lengths),
            )
        elif settings.fraction > 0:
            wanted = max(round(settings.fraction * sum(lengths.values())), min_bases)
            try:
                chosen[entry.name] = choose_contigs(entry.name, lengths, wanted=wanted, least=min_bases, seed=0)
            except InputError as error:
                faults.append(str(error))
    if faults:
        raise InputError(" ".join(faults))
    check_contigs(known, sorted(named), "data.hold_out: contig")
    if not chosen:
        raise InputError(
            "data.hold_out is empty, so there is nothing to measure the model on; "
            "give contigs, intervals or a fraction."
        )
    return chosen


def _fingerprints(
    genomes: GenomeSet, holdout: dict[str, HoldOut], tokenizer: Tokenizer, config: PretrainConfig
) -> dict[str, Any]:
    marks = dict(zip(genomes.names, genomes.fingerprints, strict=True))
    read: dict[str, dict[str, str]] = {"sampling": {}}
    rows = zip(genomes.names, genomes.weights.tolist(), genomes.taxa, strict=True)
    for row, (name, weight, taxon) in enumerate(rows, 1):  # a window depends on the order as well
        held = fingerprint_bytes(repr(holdout.get(name)).encode())[7:15]
        read["sampling"][name] = f"row {row}, weight {weight:g}, taxon {taxon}, hold-out {held}"
    people = {"variants": fingerprint_file(config.data.variants.path)} if config.data.variants else {}
    about = {"tokenizer": tokenizer.fingerprint, "start_from": str(config.model.start_from or "")}
    return {"genomes": marks, **read, **people, **about}


def hold_out_evaluation(
    examples: Any, collate: Collate, *, bases_per_id: np.ndarray, batch_size: int, device: torch.device
) -> Callable[[nn.Module], dict[str, float]]:
    """Make the function that evaluates a model on fixed masked examples.

    The loss is the mean over all masked tokens of all windows (not a mean of batch means). Bits per base divide the
    information by the bases that the masked tokens spell. They are *not* independent of the tokenizer (segmentation
    leaks which tokens can stand between two others): read them beside `longstrand.data.references`.

    Args:
        examples: masked examples, the same windows and masks at every call.
        collate: turns a list of examples into a batch.
        bases_per_id: bases that each token spells, shape (vocabulary,).
        batch_size: windows in a batch; does not change the result.
        device: where the model is.

    Returns:
        A function of the model giving ``loss`` (nats/token), ``accuracy`` (0 to 1), ``perplexity``, ``bits_per_base``.
    """
    bases = torch.as_tensor(bases_per_id, dtype=torch.long)

    def evaluate(model: nn.Module) -> dict[str, float]:
        loss, correct, tokens, spelled = 0.0, 0, 0, 0
        for batch in DataLoader(examples, batch_size=batch_size, collate_fn=collate):
            batch.pop("num_bases", None)
            batch = counted_batch(batch, model.config)
            labels = batch["labels"][batch["labels"] != IGNORED_LABEL]
            output = model(**{name: value.to(device) for name, value in batch.items()})
            loss += float(output.loss_sum)
            correct += int((output.label_logits.argmax(-1).cpu() == labels).sum())
            tokens += len(labels)
            spelled += int(bases[labels].sum())
        return summarise(loss, correct=correct, tokens=tokens, bases=spelled)

    return evaluate


def summarise(loss_sum: float, *, correct: int, tokens: int, bases: int) -> dict[str, float]:
    """Turn sums over masked tokens into means; NaN where nothing was masked."""
    if tokens == 0:
        return dict.fromkeys(("loss", "accuracy", "perplexity", "bits_per_base"), math.nan)
    mean = loss_sum / tokens
    return {
        "loss": mean,
        "accuracy": correct / tokens,
        "perplexity": math.exp(min(mean, 700.0)),
        "bits_per_base": loss_sum / math.log(2) / max(bases, 1),
    }
