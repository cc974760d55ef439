"""The first five minutes: from a genome to measured models and a report, with one call.

Every step is the library function that its own command calls, and every step resumes.
"""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.config import build, dump_config, paths_of, read_yaml
from longstrand.demo import report
from longstrand.demo.materials import DemoConfig, LabelSet, Materials, Say, gather
from longstrand.demo.report import BY_TOKENS, PRETRAINED, RANDOM, Comparison
from longstrand.errors import InputError, LongstrandError, ResumeError
from longstrand.evaluation.metrics import Scores
from longstrand.runtime import check_output, model_folder, write_atomically

logger = logging.getLogger(__name__)

SHIPPED = "mixed_6mer_1m"
PRETRAINING = {"steps": 700, "max_tokens": 66, "batch_size": 32, "learning_rate": 2e-3, "eval_windows": 128}
QUICK_PRETRAINING = {**PRETRAINING, "steps": 10, "batch_size": 16, "eval_windows": 16}
K = 4
"""Bases of a token: a motif of eight bases holds a whole one in most frames, and every token is seen often."""
MODEL = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256,
    "initializer_range": 0.08, "rotary": {"theta": 100.0},
}  # fmt: skip
"""What helps a narrow model that trains for two minutes (docs/LOG.md): weights near 1/sqrt(width), short waves."""
MASKING = {"probability": 0.25, "mask": 0.5, "random": 0.25}
MAX_GAP = 20
PASSES, QUICK_PASSES = 7, 2
"""Forward passes a sequence: every seventh token is hidden in each."""
STRUCTURE_ROWS = 300
Step = tuple[str, Callable[..., Any], tuple[Any, ...]]
"""What is done, for the reader; the function; its arguments."""
Measured = tuple[dict[str, Scores], dict[str, Mapping[str, Any]]]
"""Scores by model, and reports of runs by model."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        folder: everything.
        page: the report for people.
        data: the report for programs.
        verdict: what came out, in sentences.
        commands: what to try next: (what, command).
        seconds: how long this call took.
    """

    folder: Path
    page: Path
    data: Path
    verdict: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]
    seconds: float


def run_demo(config: DemoConfig, *, say: Say = logger.info, processes: int = 1) -> DemoResult:
    """Run the demo, or go on where it was interrupted.

    Args:
        config: what and where.
        say: called with one line for each step.
        processes: share what follows pre-training; models this small hardly use a second core. Above 1, the script
            that calls needs ``if __name__ == "__main__"``.

    Raises:
        ResumeError: the folder holds a demo with other settings.
        LongstrandError: a genome or a table is wrong, a download failed, or a process was ended from outside.
    """
    start = time.monotonic()
    claim(config)
    materials = gather(config, say)
    pretrained = None if config.yeast else run_pretraining(config, materials, say)
    model = model_folder(SHIPPED) if pretrained is None else config.output / "pretrained" / "model"
    of_labels = [comparison_steps(config, labels, model) for labels in materials.label_sets]
    steps = [step for steps in of_labels for step in steps]
    if materials.structure is not None:
        what = "fine-tuning on gene structure, a label for every base"
        steps.insert(0, (what, run_structure, (config, materials.structure, model)))
    made = run_steps(steps, say, processes)
    structure = None if materials.structure is None else made.pop(0)
    comparisons = []
    for labels, own in zip(materials.label_sets, of_labels):
        parts, made = made[: len(own)], made[len(own) :]
        scores, records = (dict(pair for part in parts for pair in part[side].items()) for side in (0, 1))
        comparisons.append(Comparison.of(labels, scores, records))
    say("writing the report")
    seconds = time.monotonic() - start
    written = report.write(config, materials, model, pretrained, comparisons, structure, seconds=seconds)
    return DemoResult(config.output, *written, time.monotonic() - start)


def claim(config: DemoConfig) -> None:
    """Write the settings into the folder, or check that they are those of before.

    Raises:
        ResumeError: the folder holds a demo with other settings, or something else.
    """
    check_output(config.output, paths_of(config))
    file = config.output / "demo.yaml"
    if file.exists():
        before, now = read_yaml(file), config.model_dump(mode="json")
        changed = [name for name in now if name not in ("output", "download") and before.get(name) != now[name]]
        if changed:
            raise ResumeError(
                f"{config.output}: holds a demo with another {' and '.join(changed)}; choose another --output, "
                "or delete the folder."
            )
        return
    if config.output.is_dir() and any(config.output.iterdir()):
        raise ResumeError(f"{config.output}: is not empty and holds no demo; choose another --output.")
    try:
        config.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{config.output}: the folder cannot be made ({error.strerror}).") from None
    write_atomically(file, dump_config(config))


def run_pretraining(config: DemoConfig, materials: Materials, say: Say) -> Any:
    """Train an encoder on the genomes; the result of `longstrand.training.pretrain.pretrain`."""
    from longstrand.training.pretrain import pretrain
    from longstrand.training.settings import PretrainConfig

    training = QUICK_PRETRAINING if config.quick else PRETRAINING
    steps = int(training["steps"])
    say(f"pre-training an encoder on {len(materials.genomes)} genome(s), {steps:,} steps")
    values = {
        "output": config.output / "pretrained",
        "data": {
            "genomes": [str(path) for path in materials.genomes],
            "hold_out": {"contigs": list(materials.hold_out)} if materials.hold_out else {},
        },
        "tokenizer": {"kind": "kmer", "k": K},
        "masking": MASKING,
        "model": {"preset": "tiny", "settings": MODEL},
        "training": {
            **training,
            "warmup_steps": steps // 10,
            "eval_every": max(1, steps // 5),
            "save_every": max(1, steps // 5),
            "log_every": max(1, steps // 50),
            "seed": config.seed,
            "num_workers": 0 if config.quick else 1,
            "tensorboard": False,
        },
    }
    result = pretrain(build(PretrainConfig, values, "demo"))
    if result.model is None:
        raise KeyboardInterrupt
    return result


def run_steps(steps: Sequence[Step], say: Say, processes: int) -> list[Any]:
    """Run steps that do not need each other, and return what they return, in their order.

    Raises:
        LongstrandError: that of a step; or a process was ended from outside.
    """
    if processes < 2:
        return [(say(title), function(*given))[1] for title, function, given in steps]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _use_one_thread) as pool:
        running = {pool.submit(function, *given): title for title, function, given in steps}
        say(f"{processes} at a time: {'; '.join(running.values())}")
        try:
            for future in as_completed(running):
                future.result()
                say(f"{running[future]}: done")
        except BrokenExecutor:
            raise LongstrandError(
                "a process of the demo was ended from outside (out of memory?); the same command goes on."
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in running]


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def comparison_steps(config: DemoConfig, labels: LabelSet, model: Path) -> list[Step]:
    """List what `Comparison.of` needs of one task; each step returns scores by model and reports of runs.

    Raises:
        InputError: the tables are wrong, or the labels are one a base.
    """
    _load(labels)
    name = labels.name
    steps: list[Step] = [
        (f"{name}: fine-tuning from the pre-trained start", fine_tuned, (config, labels, model, PRETRAINED)),
        (f"{name}: fine-tuning from the random start", fine_tuned, (config, labels, model, RANDOM)),
        (f"{name}: k-mer regressions and a compact CNN on the same rows", baselines, (config, labels)),
    ]
    if not labels.read_tokens:
        return steps
    passes = QUICK_PASSES if config.quick else PASSES
    title = f"{name}: reading the probabilities that the language model gives to hidden tokens"
    return [(title, learn_from_probabilities, (model, labels, config.seed, passes)), *steps]


def _load(labels: LabelSet) -> Any:
    """Read the tables of a task: `longstrand.training.examples.Splits`.

    Raises:
        InputError: the tables are wrong, or the labels are one a base.
    """
    from longstrand.training.examples import load_splits
    from longstrand.training.settings import DataSettings

    splits = load_splits(DataSettings(**labels.tables))
    if splits.test is None or splits.train.task.problem == "token":
        raise InputError(
            f"{labels.tables['train']}: the demo learns one label a sequence, not one a base; use finetune."
        )
    return splits


def baselines(config: DemoConfig, labels: LabelSet) -> Measured:
    """Fit k-mer regressions and a compact CNN, and predict the test rows."""
    from longstrand.baselines.cnn import CnnBaseline, Training
    from longstrand.baselines.kmer import KmerRegression
    from longstrand.baselines.majority import Majority

    splits = _load(labels)
    training = Training(epochs=2 if config.quick else 25, both_strands=True, seed=config.seed)
    fitted = {
        "6-mer regression": KmerRegression(6, both_strands=True),
        "gapped 6-mer regression": KmerRegression(6, both_strands=True, max_gap=MAX_GAP),
        "compact CNN": CnnBaseline("deepsea", training),
    }
    found = {
        name: baseline.fit(splits.train, splits.valid).predict(splits.test.sequences, splits.test.pairs)
        for name, baseline in fitted.items()
    }
    return _scores(splits, found | {"majority class": Majority.fit(splits.train).predict(splits.test.sequences)}), {}


def _scores(splits: Any, predictions: Mapping[str, np.ndarray]) -> dict[str, Scores]:
    task, targets = splits.train.task, np.asarray(splits.test.targets)
    return {name: Scores(task, targets, values) for name, values in predictions.items()}


def learn_from_probabilities(folder: Path, labels: LabelSet, seed: int, passes: int) -> Measured:
    """Learn the labels from how probable a language model finds each sequence, pre-trained and with random weights.

    A logistic regression reads `token_probabilities` of the training rows; the validation rows choose its penalty.
    """
    import torch

    from longstrand.baselines.linear import Rows, fit_linear
    from longstrand.models.checkpoint import load_model

    splits = _load(labels)
    model, found = load_model(folder, head="masked_lm").eval(), {}
    for name in (PRETRAINED, RANDOM):
        if name == RANDOM:
            torch.manual_seed(seed)
            model.load_state_dict(type(model)(model.config).state_dict())
        tables = (splits.train, splits.valid, splits.test)
        features = [token_probabilities(model, table.sequences, passes) for table in tables]
        middle, spread = features[0].mean(axis=0), features[0].std(axis=0) + 1e-9
        train, valid, test = ((values - middle) / spread for values in features)
        rows, held_out = Rows(train, np.asarray(splits.train.targets)), Rows(valid, np.asarray(splits.valid.targets))
        found[name + BY_TOKENS] = fit_linear(splits.train.task, rows, held_out, seed=seed).predict(test)
    return _scores(splits, found), {}


def token_probabilities(model: Any, sequences: Sequence[str], passes: int = PASSES) -> np.ndarray:
    """Summarise the log-probabilities that a masked LM gives to the hidden tokens of each sequence: float64 (n, 5).

    Every seventh token is hidden at a time; seven passes hide each token once. Columns: mean, median, 75 % and
    90 % quantile, and the share of tokens with a probability above 37 % (log-probability above -1).
    """
    from longstrand.questions.tokens import MaskedText, iter_log_probabilities, read_text

    encodings = [read_text(model, text) for text in sequences]
    asked_of = [
        (number, hidden)
        for number, encoding in enumerate(encodings)
        for first in range(passes)
        if len(hidden := np.flatnonzero(np.diff(encoding.offsets, axis=1)[:, 0] > 0)[first::PASSES])
    ]
    asked = (MaskedText(encodings[number], hidden, hidden) for number, hidden in asked_of)
    logs: list[list[float]] = [[] for _ in sequences]
    for (number, hidden), rows in zip(asked_of, iter_log_probabilities(model, asked)):
        logs[number] += rows[np.arange(len(hidden)), encodings[number].input_ids[hidden]].tolist()
    summary = [[np.mean(row), *np.quantile(row, (0.5, 0.75, 0.9)), np.mean(np.array(row) > -1)] for row in logs]
    return np.array(summary)


def _run_folder(config: DemoConfig, labels: LabelSet, name: str) -> Path:
    start = "random" if name == RANDOM else "pretrained"
    return config.output / "finetuned" / labels.name.replace(" ", "_").replace(",", "") / start


def fine_tuned(config: DemoConfig, labels: LabelSet, model: Path, name: str) -> Measured:
    """Fine-tune once, and read what the run wrote about the test rows."""
    import polars as pl

    from longstrand.training.finetune import finetune
    from longstrand.training.settings import FinetuneConfig

    values = {
        "output": _run_folder(config, labels, name),
        "model": {"path": model, "init": "random" if name == RANDOM else "pretrained"},
        "data": dict(labels.tables),
        "training": {**labels.training, "seed": config.seed, "tensorboard": False},
        "evaluation": {"baselines": False, "strand": labels.strand, "resamples": 0, "page": False},
    }
    result = finetune(build(FinetuneConfig, values, "demo"))
    if result.model is None:
        raise KeyboardInterrupt
    splits = _load(labels)
    task, frame = splits.train.task, pl.read_csv(result.folder / "predictions_test.csv")
    word = "predicted" if task.problem == "regression" else "probability"
    values = frame.select(f"{word}_{output}" for output in task.names).to_numpy()
    return _scores(splits, {name: values}), {name: result.report}


def run_structure(config: DemoConfig, folder: Path, model: Path) -> Any:
    """Fine-tune on a label for every base; the result of `longstrand.training.finetune.finetune`."""
    from longstrand.training.finetune import finetune
    from longstrand.training.settings import FinetuneConfig

    values = {
        "output": config.output / "gene_structure",
        "model": {"path": model},
        "data": {
            **{split: folder / f"{split}.csv" for split in ("train", "valid", "test")},
            "class_names_file": folder / "classes.csv",
            "max_train_rows": 30 if config.quick else STRUCTURE_ROWS,
        },
        "training": {"epochs": 1 if config.quick else 4, "learning_rate": 1e-3, "batch_size": 8, "strand": "+",
                     "seed": config.seed, "tensorboard": False, "metric": "loss"},
        "evaluation": {"baselines": False, "resamples": 200, "page": False},
    }  # fmt: skip
    result = finetune(build(FinetuneConfig, values, "demo"))
    if result.model is None:
        raise KeyboardInterrupt
    return result
