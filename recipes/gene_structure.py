"""Does memory help to see genes? Coding, intron or intergenic, base by base, in yeast, worm, fly and plant.

    python recipes/gene_structure.py                      # everything that is not done yet, then the table
    python recipes/gene_structure.py --method rmt --seed 0   # one cell
    python recipes/gene_structure.py --collect            # the table of what is done

A row is a window of eight segments of about 1 kb; the labels of its two outer segments count nowhere, in no method, so
that every method is trained and measured on the same bases, with at least 1 kb of sequence on either side. They differ
only in what a segment may know of the others. Each method's rate is chosen on validation rows with seed 0.
``..._long``: four epochs instead of one, at the rate that all others chose.

Labels do not depend on the strand: ``C`` coding in any transcript, ``I`` intron of a protein-coding transcript, ``O``
none of it, ``?`` not counted: untranslated exons (yeast's annotation has none, so they could not be compared) and
genes that code for no protein. So a window read from the other strand has the same labels in reverse, which is what the
library's ``strand: both`` does. Coding wins over all else; a base that is intron here and UTR there is not counted.
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longstrand import load_model, load_tokenizer
from longstrand.baselines.cnn import Training
from longstrand.baselines.registry import BaselineSettings, fit_baseline
from longstrand.config import build
from longstrand.data.labelled import LabelledTable
from longstrand.evaluation.bootstrap import Resamples, confusion_metrics, interval, paired_interval
from longstrand.genome.annotation import read_annotation, transcripts
from longstrand.genome.fasta import Genome
from longstrand.genome.features import Feature
from longstrand.inference.options import PredictOptions
from longstrand.runtime import (
    data_root,
    fingerprint_file,
    provenance,
    read_json,
    seed_everything,
    write_atomically,
    write_json,
)
from longstrand.training.examples import LabelledSplits, load_splits
from longstrand.training.finetune import finetune
from longstrand.training.measure import score
from longstrand.training.settings import DataSettings, FinetuneConfig

BASES_PER_TOKEN = 6
SPLITS = ("train", "valid", "test")
BLOCKS = ("train", "train", "test", "train", "train", "valid", "train", "test")
"""Splits of the blocks along a contig; the next contig begins three further on."""
FRAMESHIFT = 15
"""Gaps between exons shorter than this are frameshifts, not introns; they are not counted."""
CLASSES = {"O": "intergenic", "C": "coding", "I": "intron"}
NEAR = 12
"""Bases by which a predicted boundary of coding sequence may miss."""


@dataclass(frozen=True)
class Organism:
    """Files, and contigs for validation and test; without these, blocks along each contig are shared out."""

    fasta: str
    annotation: str
    left_out: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


ORGANISMS = {
    "yeast": Organism("scer_R64-1-1.fa.gz", "scer_R64-1-1.gtf.gz", ("Mito",), ("IX", "XI"), ("IV", "XV")),
    "worm": Organism("celegans_1pct.fa.gz", "celegans_1pct.gff3.gz"),
    "fly": Organism("dmelanogaster_1pct.fa.gz", "dmelanogaster_1pct.gff3.gz"),
    "plant": Organism("athaliana_1pct.fa.gz", "athaliana_1pct.gff3.gz"),
}


@dataclass(frozen=True)
class Scale:
    """Sizes: bases of a segment, windows of a block, windows of an organism at most, and how long is trained."""

    segment_bases: int = 1008
    segments: int = 8
    windows_per_block: int = 4
    most: tuple[int, int, int] = (110, 16, 48)
    memory_tokens: int = 10
    epochs: int = 1
    cnn_epochs: int = 4
    batch_size: int = 4
    rates: tuple[float, ...] = (5e-4, 2e-3)
    resamples: int = 1000

    @property
    def window(self) -> int:
        """Bases of a window."""
        return self.segment_bases * self.segments

    @property
    def step(self) -> int:
        """Bases from one window to the next: those whose labels count."""
        return self.segment_bases * (self.segments - 2)

    @property
    def block(self) -> int:
        """Bases of a block; windows overlap within it and never leave it."""
        return self.step * self.windows_per_block + 2 * self.segment_bases


FULL = Scale()
SMOKE = Scale(240, 4, 2, (8, 4, 6), memory_tokens=4, epochs=1, cnn_epochs=1, batch_size=4, resamples=20)

METHODS: dict[str, dict[str, Any]] = {
    "plain": {"memory": {"num_tokens": 0}},
    "rmt": {},
    "rmt_context": {"memory": {"context": {"left": 1, "right": 1}}},
    "rmt_bidirectional": {"memory": {"direction": "bidirectional"}},
    "plain_random": {"memory": {"num_tokens": 0}, "init": "random"},
    # Four epochs instead of one, at the rate that all methods above chose.
    "plain_long": {"memory": {"num_tokens": 0}, "times": 4, "rates": (2e-3,)},
    "rmt_long": {"times": 4, "rates": (2e-3,)},
    "rmt_bidirectional_long": {"memory": {"direction": "bidirectional"}, "times": 4, "rates": (2e-3,)},
}
BASELINES = ("majority", "context", "cnn-spliceai")
PAIRS = (
    ("rmt", "plain"),
    ("rmt_context", "plain"),
    ("rmt_bidirectional", "plain"),
    ("rmt_bidirectional", "rmt"),
    ("plain", "plain_random"),
    ("rmt_bidirectional", "cnn-spliceai"),
    ("plain", "cnn-spliceai"),
    ("plain_long", "plain"),
    ("rmt_long", "plain_long"),
    ("rmt_bidirectional_long", "plain_long"),
)  # fmt: skip


def paint(features: list[Feature], lengths: dict[str, int]) -> dict[str, np.ndarray]:
    """Give one letter a base for each contig, uint8 ASCII; see the top of this file."""
    maps = {name: np.full(length, ord("O"), np.uint8) for name, length in lengths.items()}
    coding = {item.parent for item in features if item.kind == "CDS"}
    introns, uncounted = [], []
    for item in transcripts(features):
        if item.name not in coding:
            uncounted.append((item.chrom, item.start, item.end))
            continue
        uncounted += [(item.chrom, *exon) for exon in item.exons]
        for (_, end), (start, _) in zip(item.exons, item.exons[1:]):
            (introns if start - end >= FRAMESHIFT else uncounted).append((item.chrom, end, start))
    proteins = [(x.chrom, x.start, x.end) for x in features if x.kind in ("CDS", "stop_codon")]
    for letter, places in (("I", introns), ("?", uncounted), ("C", proteins)):
        for chrom, start, end in places:
            if chrom in maps:
                maps[chrom][start:end] = ord(letter)
    return maps


def cut(organism: str, folder: Path, scale: Scale) -> dict[str, list[tuple[str, str, str]]]:
    """Cut an organism into windows: rows (name, sequence, labels) by split; those with N are left out."""
    source = ORGANISMS[organism]
    genome = Genome(folder / source.fasta)
    maps = paint(read_annotation(folder / source.annotation), genome.contigs)
    rows: dict[str, list[tuple[str, str, str]]] = {split: [] for split in SPLITS}
    contigs = [name for name in genome.contigs if name not in source.left_out]
    for number, contig in enumerate(contigs):
        for block in range(genome.contigs[contig] // scale.block):
            split = BLOCKS[(block + 3 * number) % len(BLOCKS)]
            if source.test:
                split = "test" if contig in source.test else "valid" if contig in source.valid else "train"
            for window in range(scale.windows_per_block):
                start = block * scale.block + window * scale.step
                text = genome.fetch(contig, start, start + scale.window).upper()
                labels = maps[contig][start : start + scale.window].copy()
                labels[: scale.segment_bases] = labels[-scale.segment_bases :] = ord("?")
                if set(text) <= set("ACGT"):
                    name = f"{organism}|{contig}|{block}|{start}"
                    rows[split].append((name, text, labels.tobytes().decode("ascii")))
    return {split: thin(rows[split], most) for split, most in zip(SPLITS, scale.most)}


def thin(rows: list[Any], most: int) -> list[Any]:
    """Take at most so many rows, evenly spread."""
    return rows if len(rows) <= most else [rows[i] for i in np.linspace(0, len(rows) - 1, most).round().astype(int)]


def make_tables(folder: Path, scale: Scale) -> Path:
    """Write ``train.csv``, ``valid.csv``, ``test.csv`` and ``facts.json`` (counts, fingerprints) once."""
    tables = folder / "tables"
    if (tables / "facts.json").exists():
        if read_json(tables / "facts.json")["scale"] != as_json(scale):
            raise SystemExit(f"{folder}: was begun with other sizes; give another --output.")
        return tables
    root = data_root()
    if root is None:
        raise SystemExit("set LONGSTRAND_DATA to the folder with data/genomes")
    genomes, facts = root / "data" / "genomes", {}
    rows: dict[str, list[tuple[str, str, str]]] = {split: [] for split in SPLITS}
    for organism, source in ORGANISMS.items():
        cuts = cut(organism, genomes, scale)
        facts[organism] = {name: fingerprint_file(genomes / name) for name in (source.fasta, source.annotation)}
        for split, found in cuts.items():
            rows[split] += found
            text = "".join(labels for _, _, labels in found)
            facts[organism][split] = {"windows": len(found)} | {CLASSES[k]: text.count(k) for k in CLASSES}
    tables.mkdir(parents=True, exist_ok=True)
    for split, found in rows.items():
        lines = [",".join(row) + "\n" for row in found]
        write_atomically(tables / f"{split}.csv", "name,sequence,label\n" + "".join(lines))
    write_json(tables / "facts.json", {"scale": as_json(scale), "organisms": facts})
    return tables


def as_json(scale: Scale) -> dict[str, Any]:
    """Give the sizes as they come back from a file."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(scale).items()}


def data_settings(tables: Path, *splits: str) -> dict[str, Any]:
    """PredictOptions that name some of the tables."""
    files = {split: tables / f"{split}.csv" for split in splits}
    return {**files, "test_fraction": 0, "problem": "token", "columns": {"name": "name"}}


def train_encoder(cell: Cell, rate: float, seed: int) -> tuple[float, dict[str, Any], Any]:
    """Fine-tune a method once (or take what is there): validation MCC, facts, and what predicts the test rows."""
    scale, method = cell.scale, METHODS[cell.method]
    tokens = scale.segment_bases // BASES_PER_TOKEN
    memory = {"num_tokens": scale.memory_tokens} | method.get("memory", {})
    memory["segment_length"] = tokens + (
        memory["num_tokens"] + 3 if memory["num_tokens"] else 2
    )  # [CLS] mem [SEP] x [SEP]
    folder = cell.folder / f"rate{rate:g}-seed{seed}"
    values = {
        "output": folder,
        "model": {"path": cell.model, "init": method.get("init", "pretrained")},
        "data": data_settings(cell.tables, "train", "valid"),
        "memory": memory,
        "training": {
            "epochs": scale.epochs * method.get("times", 1), "batch_size": scale.batch_size,
            "patience": 0, "strand": "both", "metric": "mcc",
            "threads": 1, "tensorboard": False, "learning_rate": rate, "seed": seed, "evaluations_per_epoch": 2,
        },
        "evaluation": {"strand": "both", "baselines": False, "resamples": 0},
    }  # fmt: skip
    report = finetune(build(FinetuneConfig, values)).report
    facts = {"parameters": report["parameters"], "memory": memory}

    def predict(table: LabelledTable) -> list[np.ndarray]:
        model, tokenizer = load_model(folder / "model"), load_tokenizer(folder / "model")
        settings = PredictOptions(strand="both", batch_tokens=16_384)
        said = score(model, table, tokenizer=tokenizer, settings=settings).logits
        return [values.argmax(-1) for values in said]

    return float(report["valid"]["metrics"]["mcc"]["value"]), facts, predict


def train_baseline(cell: Cell, rate: float, seed: int) -> tuple[float, dict[str, Any], Any]:
    """Fit a baseline once; as `train_encoder`."""
    splits = read_splits(cell.tables)
    cnn = Training(epochs=cell.scale.cnn_epochs, learning_rate=rate)
    settings = BaselineSettings(seed=seed, both_strands=True, cnn=cnn)
    fitted = fit_baseline(cell.method, splits.train, splits.valid, settings)

    def predict(table: LabelledTable) -> list[np.ndarray]:
        return [np.asarray(values).argmax(-1) for values in fitted.predict(table.sequences)]

    counts = confusion(np.concatenate(splits.valid.targets), np.concatenate(predict(splits.valid)))
    network: Any = getattr(fitted, "network", None)
    parameters = sum(weight.numel() for weight in network.parameters()) if network is not None else None
    return float(confusion_metrics(counts[None])["mcc"][0]), {"parameters": parameters}, predict


@dataclass(frozen=True)
class Cell:
    """One method or baseline of the experiment."""

    output: Path
    tables: Path
    model: Path
    method: str
    scale: Scale

    @property
    def folder(self) -> Path:
        """Where it works."""
        return self.output / self.method

    def run(self, seed: int) -> None:
        """Train and predict the test rows, unless that is done; seed 0 chooses the rate for all."""
        done = self.folder / f"seed{seed}.json"
        if done.exists():
            return
        begun = time.perf_counter()
        train = train_encoder if self.method in METHODS else train_baseline
        rates = self.scale.rates if self.method in METHODS or self.method.startswith("cnn") else self.scale.rates[:1]
        rates = METHODS.get(self.method, {}).get("rates", rates)
        if seed > 0 and len(rates) > 1:
            if not (self.folder / "seed0.json").exists():
                raise SystemExit(f"{self.method}: run seed 0 first, which chooses the learning rate.")
            rates = (read_json(self.folder / "seed0.json")["rate"],)
        torch.set_num_threads(1)
        seed_everything(seed)
        results, seconds = {}, {}
        for rate in rates:
            started = time.perf_counter(), time.process_time()
            results[rate] = train(self, rate, seed)
            seconds[rate] = time.perf_counter() - started[0], time.process_time() - started[1]
        best = max(results, key=lambda rate: results[rate][0])
        valid, facts, predict = results[best]
        said = np.stack(predict(read_splits(self.tables).test)).astype(np.uint8)
        self.folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, said=said)
        write_atomically(self.folder / f"seed{seed}.npz", buffer.getvalue())
        tried = {f"{rate:g}": round(result[0], 4) for rate, result in results.items()}
        facts |= {"method": self.method, "seed": seed, "rate": best, "valid_mcc": valid, "tried": tried}
        facts |= dict(zip(("seconds", "cpu_seconds"), (round(value, 1) for value in seconds[best])))
        facts |= {"provenance": provenance(["recipes/gene_structure.py"])}
        write_json(done, facts)
        print(f"{self.method} seed {seed}: valid MCC {tried}, {time.perf_counter() - begun:.0f} s", flush=True)


def read_splits(tables: Path) -> LabelledSplits:
    """Read the three tables; the classes are those of the training rows."""
    return load_splits(build(DataSettings, data_settings(tables, *SPLITS)))


def confusion(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Count truth by prediction where there is a label: float64 (3, 3)."""
    known = truth >= 0
    return np.bincount(truth[known] * 3 + said[known], minlength=9).reshape(3, 3).astype(float)


@dataclass(frozen=True)
class Measured:
    """The test rows as arrays: truth (n, window), block of each row (n,), organism of each row (n,)."""

    truth: np.ndarray
    unit: np.ndarray
    organism: np.ndarray
    names: tuple[str, ...]
    scale: Scale

    @classmethod
    def of(cls, table: LabelledTable, scale: Scale) -> Measured:
        """Read what a table says."""
        names = [name.split("|") for name in table.raw.names or ()]
        _, unit = np.unique(["|".join(name[:3]) for name in names], return_inverse=True)
        return cls(
            np.stack(table.targets).astype(np.int64),
            unit,
            np.array([name[0] for name in names]),
            table.task.names,
            scale,
        )

    def places(self) -> dict[str, np.ndarray]:
        """Parts of a window, bool (window,): all, near the edges of segments and far from them, each segment."""
        place = np.arange(self.truth.shape[1])
        size = self.scale.segment_bases
        inside, segment = place % size, place // size
        distance = np.minimum(inside, size - 1 - inside)
        parts = {"": place >= 0, "_edge": distance < size // 10, "_middle": distance >= size // 4}
        return parts | {f"_segment_{k}": segment == k for k in range(1, self.scale.segments - 1)}

    def tables(self, said: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Confusion by block: float64 (blocks of these rows, 3, 3)."""
        units, unit = np.unique(self.unit[rows], return_inverse=True)
        truth, called = self.truth[rows][:, columns], said[rows][:, columns]
        code = (unit[:, None] * 9 + truth * 3 + called)[truth >= 0]
        return np.bincount(code, minlength=9 * len(units)).reshape(-1, 3, 3).astype(float)


def metrics_of(cells: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Metrics of confusion matrices (block, 3, 3), each (block,)."""
    found = confusion_metrics(cells)
    flat = {name: found[name] for name in ("mcc", "f1_macro", "accuracy")}
    return flat | {f"f1_{CLASSES[name]}": found["f1"][:, place] for place, name in enumerate(names)}


def boundary_f1(truth: np.ndarray, said: np.ndarray, coding: int) -> float:
    """F1 of the borders of coding sequence, found within `NEAR` bases; only where both sides have a label."""
    hits = [0, 0, 0, 0]
    for row, called in zip(truth, said):
        known = (row[1:] >= 0) & (row[:-1] >= 0)
        places = [np.flatnonzero(known & ((x[1:] == coding) != (x[:-1] == coding))) for x in (row, called)]
        for side, (mine, other) in enumerate((places, places[::-1])):
            near = (np.abs(mine[:, None] - other[None, :]) <= NEAR).any(1) if len(other) else np.zeros(len(mine))
            hits[2 * side] += int(near.sum())
            hits[2 * side + 1] += len(mine)
    recall, precision = (hits[2 * side] / max(1, hits[2 * side + 1]) for side in (0, 1))
    return 2 * recall * precision / max(1e-9, recall + precision)


def token_ceiling(truth: np.ndarray) -> np.ndarray:
    """The best that one class for each 6-mer of the window's frame could say."""
    tokens = truth.reshape(len(truth), -1, BASES_PER_TOKEN)
    votes = np.stack([(tokens == number).sum(-1) for number in range(3)])
    return votes.argmax(0).repeat(BASES_PER_TOKEN, axis=1)


def groups(measured: Measured) -> Iterator[tuple[str, np.ndarray]]:
    """Each organism with its rows, then all."""
    for name in ORGANISMS:
        yield name, np.flatnonzero(measured.organism == name)
    yield "all", np.arange(len(measured.truth))


def measure(measured: Measured, said: np.ndarray) -> Iterator[dict[str, Any]]:
    """All metrics of one cell; intervals are over blocks (a block is up to four windows side by side)."""
    for task, rows in groups(measured):
        for part, columns in measured.places().items():
            cells = measured.tables(said, rows, columns)
            point = metrics_of(cells.sum(0)[None], measured.names)
            drawn: dict[str, list[np.ndarray]] = {name: [] for name in point}
            for weights in Resamples(len(cells), measured.scale.resamples).blocks():
                sums = (weights @ cells.reshape(len(cells), 9)).reshape(-1, 3, 3)
                for name, values in metrics_of(sums, measured.names).items():
                    drawn[name].append(values)
            for name, value in point.items():
                if part and name not in ("mcc", "f1_intron"):
                    continue
                low, high = interval(value[0], np.concatenate(drawn[name]), name, len(cells))
                yield {"task": task, "metric": f"{name}{part}", "value": value[0], "low": low, "high": high}
        borders = boundary_f1(measured.truth[rows], said[rows], measured.names.index("C"))
        yield {"task": task, "metric": "boundary_f1", "value": borders}


def compare(measured: Measured, one: Iterable[np.ndarray], other: Iterable[np.ndarray]) -> Iterator[dict[str, Any]]:
    """Paired differences of MCC, mean over seeds; the same blocks are drawn for all predictions."""
    sides = [list(one), list(other)]
    everywhere = measured.places()[""]
    for task, rows in groups(measured):
        drawn, points = [], []
        for side in sides:
            cells = [measured.tables(said, rows, everywhere) for said in side]
            points.append([float(confusion_metrics(c.sum(0)[None])["mcc"][0]) for c in cells])
            resamples = Resamples(len(cells[0]), measured.scale.resamples)
            values = [
                np.mean([confusion_metrics(np.tensordot(w, c, 1))["mcc"] for c in cells], axis=0)
                for w in resamples.blocks()
            ]
            drawn.append(np.concatenate(values))
        value = float(np.mean(points[0]) - np.mean(points[1]))
        low, high = paired_interval(value, drawn[0] - drawn[1])
        yield {"task": task, "metric": "mcc_difference", "value": value, "low": low, "high": high, "mcc": points}


COLUMNS = (
    "task",
    "method",
    "seed",
    "metric",
    "value",
    "low",
    "high",
    "seconds",
    "cpu_seconds",
    "rate",
    "valid_mcc",
    "parameters",
)


def collect(output: Path, scale: Scale, results: Path) -> None:
    """Measure every cell that is done; write the CSV file and its JSON."""
    tables = make_tables(output, scale)
    measured = Measured.of(read_splits(tables).test, scale)
    said: dict[str, dict[int, np.ndarray]] = {}
    rows: list[dict[str, Any]] = []
    cells = []
    for method in (*BASELINES, *METHODS):
        for file in sorted((output / method).glob("seed*.json")):
            facts = read_json(file)
            cells.append(facts)
            with np.load(file.with_suffix(".npz")) as saved:
                said.setdefault(method, {})[facts["seed"]] = saved["said"]
            shown = {name: facts.get(name) for name in ("method", "seed", *COLUMNS[7:])}
            rows += [row | shown for row in measure(measured, said[method][facts["seed"]])]
    rows += [row | {"method": "ceiling_6mer", "seed": 0} for row in measure(measured, token_ceiling(measured.truth))]
    pairs = [
        {"method": a, "than": b, "seeds": [len(said[a]), len(said[b])]} | row
        for a, b in PAIRS
        if a in said and b in said
        for row in compare(measured, said[a].values(), said[b].values())
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) and k != "rate" else v for k, v in row.items()})
    results.mkdir(parents=True, exist_ok=True)
    write_atomically(results / "gene_structure.csv", text.getvalue())
    record = {"command": "python recipes/gene_structure.py", "methods": METHODS, "differences": pairs}
    record |= read_json(tables / "facts.json") | {
        "cells": cells,
        "provenance": provenance(["recipes/gene_structure.py"]),
    }
    write_json(results / "gene_structure.json", record)
    figures = results.parent / "figures"
    figures.mkdir(exist_ok=True)
    write_atomically(figures / "gene_structure.svg", draw(measured, said))
    show(rows, pairs)


def draw(measured: Measured, said: dict[str, dict[int, np.ndarray]]) -> str:
    """Draw the test window with the most introns: what the annotation says, and each method with its lowest seed."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    introns = np.diff(measured.truth == measured.names.index("I"), axis=1).sum(1)
    window, size = int(introns.argmax()), measured.scale.segment_bases
    lines = {"annotation": measured.truth[window]}
    lines |= {method: cells[min(cells)][window] for method, cells in said.items() if method != "majority"}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "longstrand", "font.size": 10}):
        figure = Figure(figsize=(9, 0.8 + 0.34 * len(lines)), layout="constrained")
        axes = figure.add_subplot()
        for height, line in enumerate(lines.values()):
            for letter, colour in {"O": "#dfe5e8", "I": "#d9822b", "C": "#0b6e75"}.items():
                shown = (line == measured.names.index(letter)) & (measured.truth[window] >= 0)
                edges = np.flatnonzero(np.diff(shown, prepend=False, append=False)).reshape(-1, 2)
                bars = [(start - size, end - start) for start, end in edges.tolist()]
                axes.broken_barh(
                    bars, (height - 0.35, 0.7), color=colour, label=CLASSES[letter] if not height else None
                )
        for border in range(measured.scale.segments - 1):
            axes.axvline(border * size, color="#9aa3ab", lw=0.6, ls=":")
        axes.set(yticks=range(len(lines)), yticklabels=list(lines), xlim=(0, measured.scale.step))
        axes.set_xlabel(
            f"base of a test window ({measured.organism[window]}); dotted: borders of segments; white: not counted"
        )
        axes.invert_yaxis()
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return target.getvalue()


def show(rows: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> None:
    """Print the main numbers, mean and deviation over seeds."""
    chosen = ("mcc", "f1_macro", "f1_coding", "f1_intron", "boundary_f1", "mcc_edge", "mcc_middle")
    for task in (*ORGANISMS, "all"):
        print(f"\n{task:<20}" + "".join(f"{name:>16}" for name in chosen))
        for method in dict.fromkeys(row["method"] for row in rows):
            found = [
                [r["value"] for r in rows if (r["task"], r["method"], r["metric"]) == (task, method, m)] for m in chosen
            ]
            print(f"{method:<20}" + "".join(f"{np.mean(v):>9.3f} ±{np.std(v, ddof=len(v) > 1):.3f}" for v in found))
    for pair in pairs:
        change = f"{pair['value']:+.3f} [{pair['low']:+.3f}, {pair['high']:+.3f}]"
        print(f"{pair['task']:<7}{pair['method']} - {pair['than']}: MCC {change}, seeds {pair['seeds']}")


def main() -> None:
    """Run the cells that are asked for and not done yet, then write the table if all were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/gene_structure"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--model", type=Path, default=Path("longstrand/checkpoints/mixed_6mer_1m"))
    parser.add_argument("--method", choices=(*BASELINES, *METHODS), help="only this one")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--collect", action="store_true", help="measure what is done, train nothing")
    parser.add_argument("--smoke", action="store_true", help="minutes: small windows, one epoch")
    options = parser.parse_args()
    scale = SMOKE if options.smoke else FULL
    if options.smoke:
        options.output = options.output / "smoke"
        options.results = options.output / "results"
    if not options.collect:
        tables = make_tables(options.output, scale)
        for seed in (0, 1, 2) if options.seed is None else (options.seed,):
            for method in (*BASELINES, *METHODS) if options.method is None else (options.method,):
                Cell(options.output, tables, options.model, method, scale).run(seed)
    if options.collect or (options.method is None and options.seed is None):
        collect(options.output, scale, options.results)


if __name__ == "__main__":
    main()
