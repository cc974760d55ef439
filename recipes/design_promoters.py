"""Can a fine-tuned model of yeast promoters be pleased, and does a second one agree?

    LONGSTRAND_DATA=folder python recipes/design_promoters.py OUTPUT [--starts 4] [--rows 1500] [--edits 5]

The shipped checkpoint is fine-tuned on `yeast/upstream_300` (300 bases before genes against other bases) with two
seeds, and temperatures are fitted on validation rows. Then starts of the test rows, half of them promoters, change in
a few bases to raise the promoter output of seed 0: greedily, and by the language model (the shipped checkpoint
as prior). The tables say what the second seed and the language model make of it, beside as many random edits.
A few minutes of one thread; stopped, the same command goes on.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import polars as pl

import longstrand as ls
from longstrand.evaluation.bootstrap import Resamples, paired_interval
from longstrand.runtime import read_json, write_json

BASE = "mixed_6mer_1m"
RUNS = {"seed0": 0, "seed1": 1}
STRATEGIES = {"greedy": {}, "lm": {"width": 8, "rounds": 30, "patience": 30}}
MEASURED = 500
"""Rows on which temperatures are fitted, and test rows on which calibration is measured: six evaluations."""
COLUMNS = (
    "score_start", "score", "random_edits", "neighbours", "model2_start", "model2_score", "model2_random_edits",
    "likelihood_start", "likelihood", "likelihood_random_edits", "known_start", "known", "edits",
)  # fmt: skip


def train(tables: Path, folder: Path, rows: int) -> None:
    """Fine-tune the runs, and measure seeds, ensemble and calibration on the test rows."""
    for name in ("train", "dev", "test"):
        frame = pl.read_csv(tables / f"{name}.csv.gz")
        frame.head(rows if name == "train" else MEASURED).write_csv(folder / f"{name}.csv")
    for name, seed in RUNS.items():
        found = ls.finetune(
            BASE, train=folder / "train.csv", valid=folder / "dev.csv", test=folder / "test.csv", output=folder / name,
            seed=seed, epochs=3, learning_rate=1e-3, pack=True, evaluation={"baselines": False},
        )  # fmt: skip
        if found.model is None:
            raise SystemExit(f"{name} was stopped; the same command goes on.")
        print(f"{name}: test MCC {found.report['test']['metrics']['mcc']['value']:.3f}")


def calibrated(folder: Path) -> None:
    """Measure log loss and calibration error on some test rows, alone and as an ensemble, before and after."""
    kept = folder / "calibration.json"  # what is finished is not computed again
    known = read_json(kept) if kept.exists() else {}
    seeds = [str(folder / name) for name in ("seed0", "seed1")]
    for name, model in {"seed0": seeds[0], "seed1": seeds[1], "ensemble of the two": seeds}.items():
        if name in known:
            continue
        opened, lines = ls.load_model(model), []
        for when in ("before", "after"):
            if when == "before" and opened.reading is not None:
                opened.reading = opened.reading.model_copy(update={"temperature": None})
            if when == "after":
                fitted = ls.calibrate(opened, folder / "dev.csv")["temperature"]
                lines.append(f"{name}: temperature {fitted:.3f}")
            found = ls.evaluate(opened, folder / "test.csv")
            error, mcc = found["calibration"]["ece"], found["test"]["metrics"]["mcc"]["value"]
            null = found["calibration"]["ece_if_calibrated"]
            lines.append(
                f"{name} {when}: MCC {mcc:.3f}, loss {found['test']['loss']:.4f}, ECE {error['value']:.4f} "
                f"({error['low']:.4f} to {error['high']:.4f}; of a calibrated model {null:.4f})"
            )
        known[name] = lines
        write_json(kept, known)
    print("\n".join(line for lines in known.values() for line in lines), flush=True)


def designed(folder: Path, number: int, edits: int) -> None:
    """Design and print the mean of each column over the starts, with a 95 % interval of the differences that matter."""
    test = pl.read_csv(folder / "test.csv")
    chosen = [test.filter(pl.col("label") == label).sample(number // 2, seed=0) for label in (0, 1)]
    starts = pl.concat(chosen).with_row_index("name").select("name", "sequence", "label")
    starts.write_csv(folder / "starts.csv")
    for name, options in STRATEGIES.items():
        ls.design_file(
            folder / "seed0", folder / "starts.csv", folder / f"designs_{name}", strategy=name, max_edits=edits,
            check_models=[folder / "seed1"], prior=BASE, train=folder / "train.csv",
            name_column="name", keep=1, notice=print, **options,
        )  # fmt: skip
        table = pl.read_csv(folder / f"designs_{name}" / "designs.tsv", separator="\t")
        table = table.filter(pl.col("design") == 1)
        means = {column: round(float(table[column].mean()), 3) for column in COLUMNS}
        print(name, means)
        for title, one, other in [
            ("gain over random edits, seed 0", "score", "random_edits"),
            ("gain over random edits, seed 1", "model2_score", "model2_random_edits"),
            ("log-likelihood against the start, nats a base", "likelihood", "likelihood_start"),
            ("log-likelihood against random edits, nats a base", "likelihood", "likelihood_random_edits"),
        ]:
            gaps = (table[one] - table[other]).to_numpy()
            drawn = np.concatenate([weights @ gaps / len(gaps) for weights in Resamples(len(gaps)).blocks()])
            low, high = paired_interval(float(gaps.mean()), drawn)
            print(f"  {title}: {gaps.mean():.3f} ({low:.3f} to {high:.3f})")


def main() -> None:
    """Read the command line and run what is not finished."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--starts", type=int, default=4, help="test rows that are changed, half of them promoters")
    parser.add_argument("--rows", type=int, default=1500, help="training rows")
    parser.add_argument("--edits", type=int, default=5, help="bases that change at most")
    parser.add_argument("--step", choices=("train", "calibrate", "design"), help="one step alone; by default all")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    tables = Path(os.environ.get("LONGSTRAND_DATA", "../shared")) / "data" / "labelled" / "yeast" / "upstream_300"
    if options.step in (None, "train"):
        train(tables, options.output, options.rows)
    if options.step in (None, "calibrate"):
        calibrated(options.output)
    if options.step in (None, "design"):
        designed(options.output, options.starts, options.edits)


if __name__ == "__main__":
    main()
