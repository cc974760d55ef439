"""Does memory help to tell close genomes apart? Windows of 1, 4, 16 and 32 kb, trained on 4 kb at most.

    python recipes/close_genomes.py                                  # whatever is not done yet, then the table
    python recipes/close_genomes.py --method rmt_curriculum --seed 0    # one cell
    python recipes/close_genomes.py --collect                        # the table of what is done

The classes are the four genomes that a 6-mer regression confuses most at 1 kb (on validation blocks). Genomes are cut
into blocks of at least 100 kb, which are either for training, validation or the test; windows lie at random in blocks.
A test window of 32 kb is read to 1, 4, 16 and 32 kb, so lengths are compared on the same places. All methods start from
the shipped checkpoint, read the same number of tokens in training (0.7 million; ``..._long``: four times that), and get
their learning rate from the same two, by validation loss with seed 0. Segments have 170 tokens of six bases, about
1 kb. Everything resumes.

Arms: ``truncated`` reads the first segment, ``mean_of_segments`` averages the same model's answers (log-probabilities)
over all of them; ``rmt_*`` hand memory on from segment to segment and answer after the last (``..._mean_of_segments``:
all their answers averaged); ``block_sparse`` reads whole windows; ``kmer*`` are 6-mer regressions. All networks answer
from [CLS]; one more pair of methods from the mean over the tokens of a segment.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longstrand import load_model, load_tokenizer
from longstrand.baselines.kmer import kmer_counts
from longstrand.baselines.linear import LinearModel, Rows, fit_linear
from longstrand.config import build
from longstrand.data.targets import Task
from longstrand.evaluation.metrics import Scores, evaluate
from longstrand.genome.fasta import Genome
from longstrand.inference.predict import predict
from longstrand.models.checkpoint import save_checkpoint
from longstrand.runtime import (
    data_root,
    fingerprint_file,
    generator,
    provenance,
    read_json,
    write_atomically,
    write_json,
)
from longstrand.training.finetune import finetune
from longstrand.training.settings import FinetuneConfig

HERE = Path(__file__).resolve().parents[1]
SPECIES = {
    "human": ["human_chr3_42M_2Mb", "human_chr4_103M_2Mb", "human_chr5_124M_2Mb", "human_b37_chr20_1000000-2000000"],
    "fly": ["dmelanogaster_1pct"],
    "worm": ["celegans_1pct", "celegans_III_1Mb"],
    "arabidopsis": ["athaliana_1pct", "athaliana_braker_1Mb"],
    "rice": ["osativa_chr2_piece"],
    "yeast": ["scer_R64-1-1"],
    "plasmodium": ["pfal3D7_01_02_v3"],
    "aquifex": ["aquifex_VF5"],
    "caulobacter": ["caulobacter_CB15"],
    "chlamydia": ["chlamydia_TW183"],
    "ecoli": ["ecoli_K12_MG1655"],
    "mtub": ["mtub_H37Rv"],
    "saureus": ["saureus_MRSA252"],
    "synechocystis": ["synechocystis_6803"],
    "thermococcus": ["thermococcus_ko"],
}
"""Candidates: genomes and pieces of at least 1 Mb in the data folder; pieces of one species are one class."""

SKIPPED_CONTIGS = ("ChrSyn",)
"""A contig of the rice file that is no natural chromosome."""

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Scale:
    """Sizes of the experiment.

    Attributes:
        tokens: of a segment; ``bases`` letters.
        segments: lengths that are tested, in segments.
        budget: training, in batches of one segment a row; a multiple of 24.
        batch_size: rows.
        valid_rows: windows of a class for choosing rate and checkpoint.
        test_rows: test windows of a class.
        kmer_rows: training windows of a class of the 6-mer regressions, at each length.
        rates: learning rates that are tried.
        num_classes: size of the group.
        block: least bases of a block; ``max_blocks`` of a species are used.
        memory_tokens: of the recurrent methods.
        sparse_block: tokens of a block of sparse attention.
    """

    tokens: int = 170
    segments: tuple[int, ...] = (1, 4, 16, 32)
    budget: int = 504
    batch_size: int = 8
    valid_rows: int = 24
    test_rows: int = 50
    kmer_rows: int = 500
    rates: tuple[float, ...] = (5e-4, 2e-3)
    num_classes: int = 4
    block: int = 100_000
    max_blocks: int = 20
    memory_tokens: int = 8
    sparse_block: int = 32

    @property
    def bases(self) -> int:
        """Bases of a segment."""
        return 6 * self.tokens


FULL = Scale()
SMOKE = Scale(budget=24, valid_rows=4, test_rows=2, kmer_rows=20, rates=(2e-3,))


@dataclass(frozen=True)
class Method:
    """How a model is trained.

    Attributes:
        stages: (segments of a row, share of the tokens); several are a curriculum.
        reads: ``segment`` (one), ``memory`` (segment by segment) or ``sparse`` (whole, with block-sparse attention).
        pooling: vector that the classes are read from: [CLS] (of the last segment), or the mean over all tokens.
        times: budgets of training that it gets.
    """

    stages: tuple[tuple[int, float], ...]
    reads: str
    pooling: str = "cls"
    times: int = 1

    @property
    def segments(self) -> int:
        """Most segments of a training row."""
        return self.stages[-1][0]

    def steps(self, scale: Scale) -> list[int]:
        """Give the optimizer steps of each stage."""
        return [round(self.times * scale.budget * share / segments) for segments, share in self.stages]


CURRICULUM = ((1, 1 / 6), (2, 1 / 3), (4, 1 / 2))
METHODS = {
    "one_segment": Method(((1, 1),), "segment"),
    "rmt_curriculum": Method(CURRICULUM, "memory"),
    "rmt_no_curriculum": Method(((4, 1),), "memory"),
    "rmt_two_segments": Method(((1, 1 / 3), (2, 2 / 3)), "memory"),
    "block_sparse": Method(((4, 1),), "sparse"),
    "one_segment_mean_pooling": Method(((1, 1),), "segment", "mean"),
    "one_segment_long": Method(((1, 1),), "segment", times=4),
    "rmt_no_curriculum_long": Method(((4, 1),), "memory", times=4),
}
KMER = "kmer"


# --- genomes, blocks, windows ---


@dataclass(frozen=True)
class Block:
    """A stretch of a genome; half-open, without N."""

    genome: Genome
    chrom: str
    start: int
    end: int


@dataclass(frozen=True)
class Windows:
    """Labelled windows: ``unit`` is the number of the block of each."""

    texts: list[str]
    labels: np.ndarray
    unit: np.ndarray


def split_blocks(species: str, folder: Path, scale: Scale) -> dict[str, list[Block]]:
    """Cut a species into blocks of ``scale.block`` bases or a little more and deal them out, always alike.

    Returns:
        Blocks for training (55 %), validation (15 %) and the test (30 %).
    """
    blocks = []
    for name in SPECIES[species]:
        genome = Genome(folder / f"{name}.fa.gz")
        for chrom in sorted(set(genome.contigs) - set(SKIPPED_CONTIGS)):
            for start, end in genome.non_n_runs(chrom, scale.block):
                edges = np.linspace(start, end, (end - start) // scale.block + 1).astype(int).tolist()
                blocks += [Block(genome, chrom, *ends) for ends in itertools.pairwise(edges)]
    order = generator(0, sorted(SPECIES).index(species), "close genomes blocks").permutation(len(blocks))
    kept = [blocks[place] for place in order[: scale.max_blocks]]
    num_test, num_valid = max(1, round(0.3 * len(kept))), max(1, round(0.15 * len(kept)))
    cuts = (0, num_test, num_test + num_valid, len(kept))
    test, valid, train = (kept[a:b] for a, b in itertools.pairwise(cuts))
    return {"train": train, "valid": valid, "test": test}


def draw_windows(blocks: Sequence[Sequence[Block]], split: str, *, bases: int, number: int, seed: int) -> Windows:
    """Draw windows at random in the blocks of each class, every block equally often; letters other than ACGT: again."""
    texts, labels, unit, first = [], [], [], 0
    for label, mine in enumerate(blocks):
        random = generator(seed, label, f"close genomes {split}")
        for row in range(number):
            place = row % len(mine)
            block, text = mine[place], "N"
            while set(text) - set("ACGT"):
                start = int(random.integers(block.start, block.end - bases + 1))
                text = block.genome.fetch(block.chrom, start, start + bases).upper()
            texts.append(text)
            labels.append(label)
            unit.append(first + place)
        first += len(mine)
    return Windows(texts, np.array(labels), np.array(unit))


def kmers(texts: Iterable[str]) -> Any:
    """Count 6-mers of both strands, per 1,000 bases: a regression may then meet other lengths."""
    texts = list(texts)
    return kmer_counts(texts, 6, both_strands=True) * (1000 / len(texts[0]))


def fit_kmers(names: Sequence[str], train: Windows, valid: Windows) -> LinearModel:
    """Fit a 6-mer regression; the penalty is chosen on the validation windows."""
    task = Task("single_label", tuple(names), ("label",))
    rows = [Rows(kmers(windows.texts), windows.labels) for windows in (train, valid)]
    return fit_linear(task, rows[0], rows[1])


def confusion(names: Sequence[str], blocks: Sequence[dict[str, list[Block]]], scale: Scale) -> np.ndarray:
    """Count what a 6-mer regression calls validation windows of one segment: (true, called)."""
    windows = {}
    for split, number in (("train", scale.kmer_rows), ("valid", 5 * scale.valid_rows)):
        mine = [parts[split] for parts in blocks]
        windows[split] = draw_windows(mine, split, bases=scale.bases, number=number, seed=0)
    said = fit_kmers(names, windows["train"], windows["valid"]).predict(kmers(windows["valid"].texts)).argmax(1)
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (windows["valid"].labels, said), 1)
    return counts


@dataclass(frozen=True)
class Experiment:
    """Where everything is: ``genomes`` are read, ``output`` is written; ``seed`` of windows and training."""

    scale: Scale
    genomes: Path
    checkpoint: Path
    output: Path

    def choose(self) -> dict[str, Any]:
        """Find the group that is confused most, once; ``group.json`` keeps it with the tables."""
        file = self.output / "group.json"
        if not file.exists():
            names = sorted(SPECIES)
            blocks = {name: split_blocks(name, self.genomes, self.scale) for name in names}
            counts = confusion(names, list(blocks.values()), self.scale)
            mutual = counts + counts.T
            group = max(
                itertools.combinations(range(len(names)), self.scale.num_classes),
                key=lambda group: sum(mutual[pair] for pair in itertools.combinations(group, 2)),
            )
            chosen = [names[place] for place in group]
            again = confusion(chosen, [blocks[name] for name in chosen], self.scale)
            value = {"candidates": names, "confusion_of_candidates": counts, "group": chosen, "confusion": again}
            value = {name: np.asarray(part).tolist() for name, part in value.items()}
            value["accuracy_of_candidates"] = float(np.trace(counts) / counts.sum())
            value["accuracy"] = float(np.trace(again) / again.sum())
            value["blocks"] = {
                name: {split: len(part) for split, part in blocks[name].items()} | {"bases": num_bases(blocks[name])}
                for name in chosen
            }
            used = {file: blocks[name]["train"][0].genome for name in chosen for file in SPECIES[name]}
            value["fingerprints"] = {file: Genome(self.genomes / f"{file}.fa.gz").fingerprint for file in used}
            self.output.mkdir(parents=True, exist_ok=True)
            write_json(file, value)
        return dict(read_json(file))

    def blocks(self, split: str) -> list[list[Block]]:
        """Give the blocks of each class."""
        return [split_blocks(name, self.genomes, self.scale)[split] for name in self.choose()["group"]]

    def windows(self, split: str, segments: int, number: int, seed: int) -> Windows:
        """Draw ``number`` windows of a class."""
        bases = segments * self.scale.bases
        return draw_windows(self.blocks(split), split, bases=bases, number=number, seed=seed)

    def test_windows(self) -> Windows:
        """Give the longest test windows, the same for all seeds; shorter ones are their beginnings."""
        return self.windows("test", self.scale.segments[-1], self.scale.test_rows, 0)

    def table(self, split: str, segments: int, number: int, seed: int) -> Path:
        """Write training or validation windows as a table, in random order; once."""
        file = self.output / "tables" / f"{split}-{segments}-{number}-seed{seed}.csv"
        if not file.exists():
            windows, names = self.windows(split, segments, number, seed), self.choose()["group"]
            order = generator(seed, 0, "close genomes rows").permutation(len(windows.texts))
            lines = [f"{windows.texts[row]},{names[windows.labels[row]]}" for row in order]
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, "\n".join(["sequence,label", *lines]) + "\n")
        return file


def num_bases(parts: dict[str, list[Block]]) -> int:
    """Count the bases of the blocks of a species."""
    return sum(block.end - block.start for part in parts.values() for block in part)


# --- one cell: a method with a seed ---


def sparse_start(experiment: Experiment) -> Path:
    """Write the checkpoint with block-sparse attention, long enough for the longest window."""
    folder, scale = experiment.output / "start_sparse", experiment.scale
    if not folder.exists():
        changes = {
            "attention": {"pattern": "block_sparse", "block_size": scale.sparse_block},
            "max_position_embeddings": scale.segments[-1] * scale.tokens + 2,
        }
        model = load_model(experiment.checkpoint, "masked_lm", changes=changes)
        save_checkpoint(model, load_tokenizer(experiment.checkpoint), folder)
    return folder


def train(experiment: Experiment, name: str, *, rate: float, seed: int) -> tuple[Path, dict[str, Any]]:
    """Fine-tune a method, or go on with it; gives the model folder and the report, with processor seconds in all."""
    method, scale = METHODS[name], experiment.scale
    steps = method.steps(scale)
    rows = sum(steps) * scale.batch_size // scale.num_classes
    memory = None
    if method.reads == "memory":
        memory = {"num_tokens": scale.memory_tokens, "segment_length": scale.tokens + scale.memory_tokens + 3}
        memory |= {"loss": "all"}
        if len(steps) > 1:
            memory["curriculum"] = {"stages": [segments for segments, _ in method.stages], "steps": steps[:-1]}
    values = {
        "output": experiment.output / name / f"rate{rate:g}-seed{seed}",
        "model": {
            "path": sparse_start(experiment) if method.reads == "sparse" else experiment.checkpoint,
            "pooling": method.pooling,
        },
        "data": {
            "train": experiment.table("train", method.segments, rows, seed),
            "valid": experiment.table("valid", method.segments, scale.valid_rows, 0),
            "test_fraction": 0.0,
        },
        "memory": memory,
        "training": {
            "epochs": 1,
            "batch_size": scale.batch_size,
            "learning_rate": rate,
            "metric": "loss",
            "evaluations_per_epoch": 3,
            "patience": 0,
            "strand": "both",
            "seed": seed,
            "threads": 1,
            "tensorboard": False,
        },
        "evaluation": {"baselines": False, "resamples": 0},
    }
    folder = values["output"]
    clock, finished = folder.with_name(f"{folder.name}-seconds.json"), (folder / "report.json").exists()
    before, begun = read_json(clock) if clock.exists() else 0.0, time.process_time()
    result = finetune(build(FinetuneConfig, values))
    if not finished:
        write_json(clock, before + time.process_time() - begun)
    if result.model is None:
        raise SystemExit(f"{name}, seed {seed}: stopped by {result.stopped_by}; the same command goes on.")
    return folder / "model", result.report | {"cpu_seconds": read_json(clock) if clock.exists() else None}


def best_rate(experiment: Experiment, name: str) -> tuple[float, dict[str, float]]:
    """Try all rates with seed 0; gives the one with the lowest validation loss, and all losses."""
    losses = {}
    for rate in experiment.scale.rates:
        losses[rate] = float(train(experiment, name, rate=rate, seed=0)[1]["valid"]["loss"])
    return min(losses, key=lambda rate: losses[rate]), {f"{rate:g}": loss for rate, loss in losses.items()}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Give log-probabilities, float32 (..., C)."""
    values: np.ndarray = torch.log_softmax(torch.from_numpy(logits), -1).numpy()
    return values


def measure(experiment: Experiment, name: str, folder: Path) -> dict[tuple[str, int], np.ndarray]:
    """Predict the test windows at every length: log-probabilities (n, C) by result and segments."""
    scale, reads = experiment.scale, METHODS[name].reads
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    names, texts = experiment.choose()["group"], experiment.test_windows().texts
    order = [model.config.heads["sequence"].class_names.index(each) for each in names]
    if reads == "memory":
        ids = np.stack([tokenizer.encode_ids(text)[0] for text in texts]).astype(np.int64)
        said = log_softmax(stream_windows(model, ids, scale.tokens)[..., order])
        found = {(name, segments): said[:, segments - 1] for segments in scale.segments}
        return found | averaged(f"{name}_mean_of_segments", said, scale.segments)
    if reads == "segment":
        longest = scale.segments[-1]
        pieces = (text[i * scale.bases : (i + 1) * scale.bases] for text in texts for i in range(longest))
        said = log_softmax(logits(model, pieces, tokenizer)[:, order]).reshape(len(texts), longest, -1)
        kind = name.removeprefix("one_segment")
        found = {(f"truncated{kind}", segments): said[:, 0] for segments in scale.segments}
        return found | averaged(f"mean_of_segments{kind}", said, scale.segments)
    found = {}
    for segments in scale.segments:
        windows = (text[: segments * scale.bases] for text in texts)
        found[name, segments] = log_softmax(logits(model, windows, tokenizer)[:, order])
    return found


def logits(model: Any, texts: Iterable[str], tokenizer: Any) -> np.ndarray:
    """Predict texts as they are: (n, C)."""
    return np.stack([each.values for each in predict(model, texts, tokenizer=tokenizer)])


def stream_windows(model: Any, ids: np.ndarray, room: int, rows: int = 20) -> np.ndarray:
    """Read windows (n, tokens) segment by segment, once: the logits after each, (n, segments, C).

    After n segments they are what `predict` gives for a window of n full segments.
    """
    said = []
    for part in torch.from_numpy(ids).split(rows):
        outputs = model.stream(iter(part.split(room, dim=1)))
        said.append(torch.stack([output.logits for output in outputs], dim=1))
    return torch.cat(said).numpy()


def averaged(name: str, said: np.ndarray, lengths: Iterable[int]) -> dict[tuple[str, int], np.ndarray]:
    """Average log-probabilities (n, segments, C) over the first segments, for each number of them."""
    return {(name, segments): log_softmax(said[:, :segments].mean(1)) for segments in lengths}


def kmer_cell(experiment: Experiment, seed: int) -> dict[tuple[str, int], np.ndarray]:
    """Fit 6-mer regressions at each length, and one at one segment whose answers are averaged over segments."""
    scale, names, windows = experiment.scale, experiment.choose()["group"], experiment.test_windows()
    fitted = {}
    for segments in scale.segments:
        parts = [
            experiment.windows("train", segments, scale.kmer_rows, seed),
            experiment.windows("valid", segments, scale.valid_rows, 0),
        ]
        fitted[segments] = fit_kmers(names, *parts)
    found = {}
    for segments, model in fitted.items():
        said = model.predict(kmers(text[: segments * scale.bases] for text in windows.texts))
        found["kmer", segments] = np.log(np.clip(said, 1e-9, 1))
    longest, bases = scale.segments[-1], scale.bases
    pieces = (text[i * bases : (i + 1) * bases] for text in windows.texts for i in range(longest))
    said = np.log(np.clip(fitted[scale.segments[0]].predict(kmers(pieces)), 1e-9, 1))
    said = said.reshape(len(windows.texts), longest, -1)
    return found | averaged("kmer_mean_of_segments", said, scale.segments)


def run_cell(experiment: Experiment, name: str, seed: int) -> None:
    """Train and measure one method with one seed, unless its file is there."""
    file = experiment.output / "cells" / f"{name}-seed{seed}.json"
    if file.exists():
        return
    cell: dict[str, Any] = {"method": name, "seed": seed, "train_segments": None, "seconds": None}
    if name == KMER:
        found = kmer_cell(experiment, seed)
    else:
        rate, losses = best_rate(experiment, name)
        folder, report = train(experiment, name, rate=rate, seed=seed)
        cell |= {"train_segments": METHODS[name].segments, "seconds": report["cpu_seconds"]}
        cell |= {"rate": rate, "validation_loss_of_rates": losses, "steps": METHODS[name].steps(experiment.scale)}
        cell |= {"validation_loss": report["valid"]["loss"], "best_step": report["best_step"]}
        found = measure(experiment, name, folder)
    windows, task = experiment.test_windows(), Task("single_label", tuple(experiment.choose()["group"]), ("label",))
    cell["results"] = []
    for (result, segments), said in found.items():
        scores = Scores(task, windows.labels, np.exp(said), windows.unit)
        report = evaluate(scores, num_resamples=1000)
        loss = -said[np.arange(len(said)), windows.labels]
        values = {"accuracy": report["metrics"]["accuracy"], "log_loss": {"value": float(loss.mean())}}
        about = {"name": result, "segments": segments, "length": segments * experiment.scale.bases}
        cell["results"].append(about | {"metrics": values, "confusion": report["confusion"]["counts"]})
    file.parent.mkdir(exist_ok=True)
    write_json(file, cell | {"provenance": provenance(["recipes/close_genomes.py"])})


# --- the table ---

COLUMNS = (
    "task",
    "method",
    "seed",
    "metric",
    "value",
    "length",
    "segments",
    "train_segments",
    "seconds",
    "low",
    "high",
)


def table_rows(cells: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give one row for each method, seed, length and metric; intervals over test blocks, processor seconds."""
    rows = []
    for cell in cells:
        for result in cell["results"]:
            for metric, found in result["metrics"].items():
                row = {
                    "task": "close_genomes",
                    "method": result["name"],
                    "seed": cell["seed"],
                    "metric": metric,
                } | found
                row |= {name: result[name] for name in ("length", "segments")}
                row |= {name: cell[name] for name in ("train_segments", "seconds")}
                rows.append(row)
    return rows


def collect(experiment: Experiment, results: Path) -> list[dict[str, Any]]:
    """Write ``close_genomes.csv`` and ``.json`` from the cells that are finished; gives the rows."""
    cells = [
        read_json(file)
        for name in (KMER, *METHODS)
        for seed in SEEDS
        if (file := experiment.output / "cells" / f"{name}-seed{seed}.json").exists()
    ]
    group = experiment.choose()
    rows = table_rows(cells)
    for seed, length in itertools.product((0,), experiment.scale.segments):
        about = {"task": "close_genomes", "method": "majority", "seed": seed, "segments": length}
        values = {"metric": "accuracy", "value": 1 / len(group["group"]), "length": length * experiment.scale.bases}
        rows.append(about | values)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: rounded(row.get(name)) for name in COLUMNS} for row in rows)
    results.mkdir(parents=True, exist_ok=True)
    write_atomically(results / "close_genomes.csv", text.getvalue())
    value = {
        "settings": vars(experiment.scale),
        "methods": {name: vars(method) for name, method in METHODS.items()},
        "group": group,
        "checkpoint": fingerprint_file(experiment.checkpoint / "model.safetensors"),
        "cells": cells,
        "missing": [f"{n}-seed{s}" for n in (KMER, *METHODS) for s in SEEDS if not any(
            (cell["method"], cell["seed"]) == (n, s) for cell in cells)],
        "provenance": provenance(["recipes/close_genomes.py", "--collect"]),
    }  # fmt: skip
    write_json(results / "close_genomes.json", value)
    return rows


def rounded(value: Any) -> Any:
    """Shorten numbers for the table."""
    return f"{value:.4g}" if isinstance(value, float) else value


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Write accuracies by method and length, one number a seed."""
    lengths = sorted({row["length"] for row in rows})
    lines = ["method".ljust(24) + "".join(f"{length:,}".rjust(20) for length in lengths)]
    for method in dict.fromkeys(row["method"] for row in rows):
        words = []
        for length in lengths:
            mine = [
                row for row in rows if (row["method"], row["length"], row["metric"]) == (method, length, "accuracy")
            ]
            words.append(" ".join(f"{row['value']:.3f}" for row in mine).rjust(20))
        lines.append(method.ljust(24) + "".join(words))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cells that are asked for, or all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "runs" / "close_genomes")
    parser.add_argument("--results", type=Path, default=HERE / "docs" / "results", help="where the table is written")
    parser.add_argument("--model", type=Path, default=HERE / "longstrand" / "checkpoints" / "mixed_6mer_1m")
    parser.add_argument("--method", choices=(KMER, *METHODS), nargs="+", default=(KMER, *METHODS))
    parser.add_argument("--seed", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--collect", action="store_true", help="only the table of what is done")
    parser.add_argument("--smoke", action="store_true", help="a minute: is everything in place? results mean nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    root = data_root()
    if root is None:
        parser.error("no data folder: set LONGSTRAND_DATA to the folder with data/genomes")
    scale = SMOKE if options.smoke else FULL
    experiment = Experiment(scale, root / "data" / "genomes", options.model, options.output)
    if not options.collect:
        for seed, name in itertools.product(options.seed, options.method):
            run_cell(experiment, name, seed)
            print(name, seed, "done", flush=True)
    if options.collect or (set(options.method), set(options.seed)) == ({KMER, *METHODS}, set(SEEDS)):
        print(summary(collect(experiment, options.output if options.smoke else options.results)))


if __name__ == "__main__":
    main()
