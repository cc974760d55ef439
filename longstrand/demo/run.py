"""The first five minutes: from a genome to measured models and a report, with one call.

Every step is the library function that its own command calls, and every step resumes.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.config import build, dump_config, paths_of, read_yaml
from longstrand.demo.materials import PRETRAINED, RANDOM, Aside, DemoConfig, LabelSet, Materials, at_once, gather
from longstrand.errors import InputError, ResumeError
from longstrand.runtime import Notice, check_output, model_folder, torch_threads, write_atomically

if TYPE_CHECKING:
    from longstrand.demo.report import Comparison

logger = logging.getLogger(__name__)

SHIPPED = "mixed_6mer_1m"
BY_TOKENS = ", token probabilities"
"""Ending of the names of language models that are read by the probabilities they give to hidden tokens."""
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


def run_demo(config: DemoConfig, *, notice: Notice = logger.info) -> DemoResult:
    """Run the demo, or go on where it was interrupted.

    Args:
        config: what and where.
        notice: receives a sentence for each step.

    Raises:
        ResumeError: the folder holds a demo with other settings.
        LongstrandError: a genome or a table is wrong, or a download failed.
    """
    start = time.monotonic()
    claim(config)
    with work_aside(config) as aside:
        materials = gather(config, notice, aside)
        gc.freeze()  # every training collects garbage, which would go through every object of PyTorch
        baselines = [aside(fit_baselines, config, labels) for labels in materials.label_sets]
        pretrained = None if config.yeast else run_pretraining(config, materials, notice)
        model = model_folder(SHIPPED) if pretrained is None else config.output / "pretrained" / "model"
        with torch_threads(None if config.quick else half_the_threads()):
            folder = None if materials.structure is None else materials.structure()
            trained = None if folder is None else aside(run_structure, config, folder, model)
            given = zip(materials.label_sets, baselines)
            comparisons = [compare(config, labels, fitted, model, notice, aside) for labels, fitted in given]
            notice("fine-tuning on gene structure, a label for every base")
            structure = None if trained is None else trained()
    notice("writing the report")
    from longstrand.demo import report

    seconds = time.monotonic() - start
    made = report.write(config, materials, model, pretrained, comparisons, structure, seconds=seconds)
    return DemoResult(config.output, *made, time.monotonic() - start)


@contextmanager
def work_aside(config: DemoConfig) -> Iterator[Aside]:
    """Give a function that starts work in a second process, which takes what the first leaves of the processors.

    A quick run has no second process.
    """
    if config.quick:
        yield at_once
        return
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_stand_back) as pool:
        yield lambda work, *given: pool.submit(work, *given).result


def half_the_threads() -> int:
    """Count the threads of one of two processes."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return max(1, mine // 2)


def _stand_back() -> None:
    """Leave the processors to the first process where there is work for both, and end at once on Ctrl-C."""
    os.nice(19)
    os.environ.setdefault("OMP_NUM_THREADS", str(half_the_threads()))  # PyTorch is imported later
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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


def run_pretraining(config: DemoConfig, materials: Materials, notice: Notice) -> Any:
    """Train an encoder on the genomes; the result of `longstrand.training.pretrain.pretrain`."""
    from longstrand.training.pretrain import pretrain
    from longstrand.training.settings import PretrainConfig

    training = QUICK_PRETRAINING if config.quick else PRETRAINING
    steps = int(training["steps"])
    notice(f"pre-training an encoder on {len(materials.genomes)} genome(s), {steps:,} steps")
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


def fit_baselines(config: DemoConfig, labels: LabelSet) -> dict[str, np.ndarray]:
    """Fit the baselines of a task: name to predictions of the test rows (n, outputs)."""
    from longstrand.baselines.cnn import CnnBaseline, Training
    from longstrand.baselines.kmer import KmerRegression
    from longstrand.baselines.majority import Majority

    splits = load_tables(labels)
    train, valid, test = splits.train, splits.valid, splits.test
    baselines = {
        "6-mer regression": KmerRegression(6, both_strands=True),
        "gapped 6-mer regression": KmerRegression(6, both_strands=True, max_gap=MAX_GAP),
        "compact CNN": CnnBaseline(
            "deepsea", Training(epochs=2 if config.quick else 25, both_strands=True, seed=config.seed)
        ),
    }
    found = {name: one.fit(train, valid).predict(test.sequences, test.pairs) for name, one in baselines.items()}
    return found | {"majority class": Majority.fit(train).predict(test.sequences)}


def load_tables(labels: LabelSet) -> Any:
    """Load the splits of a task.

    Raises:
        InputError: the labels are one a base.
    """
    from longstrand.training.examples import load_splits
    from longstrand.training.settings import DataSettings

    splits = load_splits(DataSettings(**labels.tables))
    if splits.test is None or splits.train.task.problem == "token":
        raise InputError(
            f"{labels.tables['train']}: the demo learns one label a sequence, not one a base; use finetune."
        )
    return splits


def compare(
    config: DemoConfig,
    labels: LabelSet,
    baselines: Callable[[], dict[str, np.ndarray]],
    model: Path,
    notice: Notice,
    aside: Aside,
) -> Comparison:
    """Fine-tune from the pre-trained and, aside, from a random start; compare with the baselines on the test rows.

    Raises:
        InputError: the labels are one a base.
    """
    from longstrand.demo.report import Comparison
    from longstrand.evaluation.metrics import Scores

    splits = load_tables(labels)
    task, targets = splits.train.task, np.asarray(splits.test.targets)
    predictions, random = {}, aside(_finetune, config, labels, model, RANDOM)
    if labels.read_tokens:
        notice(f"{labels.name}: reading the probabilities that the language model gives to hidden tokens")
        passes = QUICK_PASSES if config.quick else PASSES
        predictions |= learn_from_probabilities(model, splits, config.seed, passes)
    notice(f"{labels.name}: fine-tuning from the pre-trained start and from a random one")
    records = {PRETRAINED: _finetune(config, labels, model, PRETRAINED), RANDOM: random()}
    predictions |= {name: _predictions(config, labels, name, task) for name in records}
    notice(f"{labels.name}: k-mer regressions and a compact CNN on the same rows")
    scores = {name: Scores(task, targets, values) for name, values in (predictions | baselines()).items()}
    return Comparison.of(labels, scores, records)


def learn_from_probabilities(folder: Path, splits: Any, seed: int, passes: int) -> dict[str, np.ndarray]:
    """Learn the labels from how probable a language model finds each sequence, pre-trained and with random weights.

    A logistic regression reads `token_probabilities` of the training rows; the validation rows choose its penalty.

    Returns:
        Model name to class probabilities of the test rows (n, classes).
    """
    import torch

    from longstrand.baselines.linear import Rows, fit_linear
    from longstrand.models.checkpoint import load_model

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
        found[name + BY_TOKENS] = fit_linear(splits.train.task, rows, held_out).predict(test)
    return found


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


def _finetune(config: DemoConfig, labels: LabelSet, model: Path, name: str) -> Mapping[str, Any]:
    """Fine-tune once and give the report."""
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
    return result.report


def _predictions(config: DemoConfig, labels: LabelSet, name: str, task: Any) -> np.ndarray:
    """Read what a run wrote about the test rows: float (n, num_outputs)."""
    import polars as pl

    frame = pl.read_csv(_run_folder(config, labels, name) / "predictions_test.csv")
    word = "predicted" if task.problem == "regression" else "probability"
    return frame.select(f"{word}_{output}" for output in task.names).to_numpy()


def run_structure(config: DemoConfig, folder: Path, model: Path) -> Any:
    """Fine-tune on the tables of a folder, a label for every base; the result, without predictions."""
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
    return replace(result, scored={})
