"""Does attribution find the motif? Planted ones, and CTCF against PU.1, beside what knows nothing of the model.

    python recipes/attribution_motifs.py planted --output runs/attribution
    python recipes/attribution_motifs.py ctcf --output runs/attribution
    python recipes/attribution_motifs.py ctcf_moved --output runs/attribution

``planted``: the consensus of CTCF's JASPAR matrix at uniform places of shuffled yeast DNA; the controls hold its
letters in random order, so that composition says nothing. ``planted_sampled``: sites drawn from the matrix, which is
harder. ``ctcf``: ChIP-seq windows of 100 bases, which are centred on the peaks. ``ctcf_moved``: 60 of their bases, cut
out at random places. The shipped checkpoint is fine-tuned on each with some seeds, a CNN beside it; then every map is
asked where the bases of the site are: AUROC, and the share of the k highest bases that lie in the site of k bases.
Means over sequences, then mean and deviation over seeds.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

import longstrand as ls
from longstrand.baselines.cnn import Training
from longstrand.baselines.registry import BaselineSettings, fit_baseline
from longstrand.data.labelled import LabelledTable, label
from longstrand.data.labelled_files import read_labelled
from longstrand.data.rows import read_entries
from longstrand.data.targets import infer_task
from longstrand.explain.motifs import Motif, choose, read_motifs
from longstrand.explain.perturb import mutagenesis
from longstrand.explain.scan import scan
from longstrand.explain.trust import auroc, centre_distance, gc_around, mixed_up
from longstrand.genome.sequence import reverse_complement, shuffle_dinucleotides
from longstrand.inference.loaded import open_model
from longstrand.runtime import generator, provenance, read_json, write_json

DATA = Path(os.environ.get("LONGSTRAND_DATA", "../shared")) / "data"
JASPAR = DATA / "motifs" / "JASPAR2022_CORE_vertebrates_non-redundant.meme"
SPLITS = ("train", "dev", "test")
PLANTED_BASES, MOVED_BASES, SITE_P = 120, 60, 1e-5
Spans = dict[str, list[tuple[int, int]]]


def ctcf_motif() -> Motif:
    """Read the matrix of CTCF."""
    (motif,) = choose(read_motifs(JASPAR), ["MA0139.1"])
    return motif


def planted(motif: Motif, number: int, split: str, *, sampled: bool) -> pl.DataFrame:
    """Make rows of shuffled yeast DNA with a site (label 1, with its place) or a shuffled site (0)."""
    random = generator(0, SPLITS.index(split), "planted motifs")
    genome = [text.upper() for _, text in read_entries(DATA / "genomes" / "scer_R64-1-1.fa.gz")]
    genome = [text for text in genome if len(text) > 200_000]
    rows = []
    for row in range(number):
        contig = genome[int(random.integers(len(genome)))]
        start = int(random.integers(len(contig) - PLANTED_BASES))
        text = shuffle_dinucleotides(contig[start : start + PLANTED_BASES], random)
        site = motif.consensus
        if sampled:
            site = "".join("ACGT"[random.choice(4, p=column / column.sum())] for column in motif.frequencies)
        site = site if random.random() < 0.5 else reverse_complement(site)
        site = site if row % 2 else "".join(random.permutation(list(site)))
        place = int(random.integers(PLANTED_BASES - len(site) + 1))
        rows.append((text[:place] + site + text[place + len(site) :], row % 2, place, place + len(site)))
    return pl.DataFrame(rows, schema=["sequence", "label", "start", "end"], orient="row")


def chip(motif: Motif, number: int, split: str, bases: int | None) -> pl.DataFrame:
    """Read windows of CTCF (1) and PU.1 (0), cut at random if asked, with the best CTCF site of each."""
    frame = pl.read_csv(DATA / "labelled" / "tf" / "ctcf_vs_pu1" / f"{split}.csv.gz")
    random = generator(0, SPLITS.index(split), "ctcf windows")
    frame = frame[random.permutation(len(frame))[:number].tolist()]
    texts = frame["sequence"].to_list()
    if bases is not None:
        cuts = random.integers(0, [len(text) - bases + 1 for text in texts]).tolist()
        texts = [text[cut : cut + bases] for text, cut in zip(texts, cuts)]
    hits, best = scan([motif], texts, threshold=SITE_P), {}
    for row, start, end, p in zip(hits.sequence.tolist(), hits.start.tolist(), hits.end.tolist(), hits.p.tolist()):
        if row not in best or p < best[row][2]:
            best[row] = (start, end, p)
    places = [best.get(row, (None, None, 1.0))[:2] for row in range(len(texts))]
    return pl.DataFrame({
        "sequence": texts, "label": frame["label"], "start": [a for a, _ in places], "end": [b for _, b in places],
    })  # fmt: skip


def tables(task: str, folder: Path, sizes: tuple[int, int, int]) -> dict[str, Path]:
    """Write the rows of a task once."""
    folder.mkdir(parents=True, exist_ok=True)
    motif, found = ctcf_motif(), {}
    for split, number in zip(SPLITS, sizes):
        found[split] = folder / f"{split}.csv"
        if not found[split].exists():
            moved = MOVED_BASES if task == "ctcf_moved" else None
            if task.startswith("planted"):
                frame = planted(motif, number, split, sampled=task == "planted_sampled")
            else:
                frame = chip(motif, number, split, moved)
            frame.write_csv(found[split])
    return found


def labelled(path: Path) -> LabelledTable:
    """Read a table with its labels."""
    raw = read_labelled(path)
    return label(raw, infer_task(raw))


def cnn_map(files: dict[str, Path], texts: list[str], seed: int) -> tuple[float, list[np.ndarray]]:
    """Train a CNN on the same rows; give its accuracy on the test rows and its mutagenesis of some texts."""
    train, dev, test = (labelled(files[split]) for split in SPLITS)
    settings = BaselineSettings(seed=seed, both_strands=True, cnn=Training(epochs=6))
    model = fit_baseline("cnn-deepsea", train, dev, settings)
    right = float((model.predict(test.sequences).argmax(1) == np.asarray(test.targets)).mean())

    def score(some: object) -> np.ndarray:
        shares = np.clip(model.predict(list(some)), 1e-6, 1 - 1e-6)  # type: ignore[call-overload]
        return np.log(shares[:, 1:] / shares[:, :1])

    return right, [mutagenesis(score, text).importance for text in texts]


def maps_of(run: Path, texts: list[str]) -> dict[str, Callable[[], list[np.ndarray]]]:
    """Name the maps of a fine-tuned model, and how each is made."""
    network = open_model(run).network

    def made(model: object, **options: object) -> Callable[[], list[np.ndarray]]:
        return lambda: [one.values for one in ls.attribute(model, texts, strand="both", threads=1, **options)]  # type: ignore[arg-type]

    return {
        "integrated gradients, mask": made(network),
        "integrated gradients, shuffled": made(network, baseline="shuffled", steps=5, most_steps=5),
        "gradient x difference": made(network, method="gradient"), "occlusion": made(network, method="occlusion"),
        "mutagenesis": made(network, method="ism"),
        "integrated gradients, weights mixed up": made(mixed_up(network, "all"), most_steps=20),
    }  # fmt: skip


def found(maps: list[np.ndarray], places: list[tuple[int, int]]) -> tuple[float, float]:
    """Give the means over sequences of the AUROC of the site's bases, and of the overlap of the k highest."""
    areas, shares = [], []
    for values, (start, end) in zip(maps, places):
        inside = np.zeros(len(values), dtype=bool)
        inside[start:end] = True
        areas.append(auroc(values, inside))
        top = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[: end - start]
        shares.append(float(inside[top].mean()))
    return float(np.nanmean(areas)), float(np.mean(shares))


def main() -> None:
    """Train, explain, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("planted", "planted_sampled", "ctcf", "ctcf_moved"))
    parser.add_argument("--output", type=Path, default=Path("runs/attribution"))
    parser.add_argument("--model", default="mixed_6mer_1m")
    parser.add_argument("--rows", type=int, default=6000, help="training rows")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--explained", type=int, default=60, help="test sequences with a site")
    options = parser.parse_args()
    folder = options.output / options.task
    files = tables(options.task, folder / "rows", (options.rows, 1000, 2000))
    test = pl.read_csv(files["test"]).filter((pl.col("label") == 1) & pl.col("start").is_not_null())
    test = test.head(options.explained)
    texts, places = test["sequence"].to_list(), list(zip(test["start"].to_list(), test["end"].to_list()))
    results: dict[str, list[tuple[float, float]]] = {
        "distance from the centre": [found([centre_distance(len(text)) for text in texts], places)],
        "GC in 19 bases": [found([gc_around(text) for text in texts], places)],
    }
    accuracies: dict[str, list[float]] = {"model": [], "CNN": []}
    for seed in map(int, options.seeds.split(",")):
        run, kept = folder / f"seed{seed}", folder / f"seed{seed}.json"  # what is finished is not computed again
        report = ls.finetune(
            options.model, train=files["train"], valid=files["dev"], test=files["test"], output=run,
            epochs=options.epochs, learning_rate=1e-3, seed=seed, patience=0, pooling="mean", threads=1,
            pack=True, metric="accuracy", training={"strand": "both"},
            evaluation={"strand": "both", "baselines": False, "page": False},
        ).report  # fmt: skip
        if not report:
            raise SystemExit(f"seed {seed} was stopped; the same command goes on.")
        known = read_json(kept) if kept.exists() else {}
        if "CNN, mutagenesis" not in known:
            right, maps = cnn_map(files, texts, seed)
            known |= {"CNN": right, "CNN, mutagenesis": found(maps, places)}
            write_json(kept, known)
        for name, make in maps_of(run, texts).items():
            if name not in known:
                known[name] = found(make(), places)
                write_json(kept, known)
        accuracies["model"].append(float(report["test"]["metrics"]["accuracy"]["value"]))
        accuracies["CNN"].append(known.pop("CNN"))
        for name, values in known.items():
            results.setdefault(name, []).append(tuple(values))
        print(seed, accuracies, known, flush=True)
    write_json(folder / "results.json", {"accuracy": accuracies, "maps": results, **provenance()})
    print(f"{options.task}: accuracy {accuracies}, {len(texts)} sequences")
    for name, values in results.items():
        columns = [[value[i] for value in values] for i in range(2)]
        spread = [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns]
        print(f"| {name} | {np.mean(columns[0]):.2f} ± {spread[0]:.2f} | {np.mean(columns[1]):.2f} ± {spread[1]:.2f} |")


if __name__ == "__main__":
    main()
