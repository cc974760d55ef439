"""Time the k-mer regression baseline and the bootstrap: 30,000 sequences of 100 bases, 3,000 test rows.

Run ``python perf/baseline.py`` on an idle machine; the result goes to ``perf/results/baseline.json``. The sequences are
random, half of them with a planted motif; counting, choosing the penalty on validation rows, and 1,000 resamples of
every metric are timed apart. The total is all but the extra count: counting, fitting, choosing, predicting, measuring.
Takes about 20 seconds; compiled code, which the disk caches, is loaded before the clock starts.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import sklearn

from longstrand.baselines.kmer import KmerRegression, kmer_counts
from longstrand.data.labelled import LabelledTable
from longstrand.data.labelled_files import RawTable
from longstrand.data.targets import Task
from longstrand.evaluation.metrics import Scores, evaluate
from longstrand.runtime import machine

RESULTS = Path(__file__).parent / "results" / "baseline.json"
TARGET_S = 20.0


def table(num_rows: int, seed: int) -> LabelledTable:
    random = np.random.default_rng(seed)
    letters = random.integers(0, 4, (num_rows, 100))
    truth = random.integers(0, 2, num_rows)
    motif = np.array(["ACGT".index(letter) for letter in "TATAAACG"])
    for row, place in zip(truth.nonzero()[0], random.integers(0, 92, int(truth.sum()))):
        kept = random.random(8) < 0.8
        letters[row, place : place + 8] = np.where(kept, motif, letters[row, place : place + 8])
    texts = ["".join("ACGT"[digit] for digit in row) for row in letters]
    return LabelledTable(
        RawTable("simulated", list(range(num_rows)), texts, {}), Task("single_label", ("no", "yes"), ("label",)), truth
    )


def main() -> None:
    train, valid, test = table(30_000, 0), table(3_000, 1), table(3_000, 2)
    times = {}
    kmer_counts(train.sequences[:10], 6)
    began = time.perf_counter()
    kmer_counts(train.sequences, 6)
    times["count 6-mers"] = time.perf_counter() - began
    began = time.perf_counter()
    model = KmerRegression(6).fit(train, valid)
    times["count, fit and choose the penalty"] = time.perf_counter() - began
    began = time.perf_counter()
    report = evaluate(Scores(test.task, np.asarray(test.targets), model.predict(test.sequences)))
    times["metrics with 1,000 resamples"] = time.perf_counter() - began
    total = sum(times.values()) - times["count 6-mers"]
    result = {
        "machine": machine() | {"scikit-learn": sklearn.__version__},
        "seconds": {name: round(value, 3) for name, value in times.items()},
        "total_s": round(total, 3),
        "mcc": report["metrics"]["mcc"],
        "target_s": TARGET_S,
        "ratio": round(TARGET_S / total, 2),
        "met": total < TARGET_S,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    print(f"k-mer regression on 30,000 x 100 bases: {total:.1f} s, target {TARGET_S:.0f} s, ratio {result['ratio']}")


if __name__ == "__main__":
    main()
