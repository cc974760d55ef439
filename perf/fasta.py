"""Time random access to a genome: 4,096 bases from an indexed FASTA, against pysam on the same file.

Run ``python perf/fasta.py`` on an idle machine; the result goes to ``perf/results/fasta.json``. The genome is simulated
(4 million random bases, 80 columns), read in place, from a gzip file through its cached copy, and by pysam.
"""

from __future__ import annotations

import gzip
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pysam

from longstrand.genome.fasta import Genome
from longstrand.runtime import machine

RESULTS = Path(__file__).parent / "results" / "fasta.json"
NUM_BASES = 4_000_000
WINDOW = 4096
NUM_FETCHES = 20_000
ROUNDS = 7
TARGET_US = 10.0


def main() -> None:
    numbers = random.Random(0)
    sequence = "".join(numbers.choices("ACGT", k=NUM_BASES))
    starts = [numbers.randrange(NUM_BASES - WINDOW) for _ in range(NUM_FETCHES)]
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder) / "genome.fa", Path(folder) / "genome.fa.gz"
        lines = (sequence[start : start + 80] for start in range(0, NUM_BASES, 80))
        plain.write_text(">c\n" + "\n".join(lines) + "\n")
        packed.write_bytes(gzip.compress(plain.read_bytes(), 1))
        began = time.perf_counter()
        genomes = {"longstrand, plain": Genome(plain), "longstrand, gzip": Genome(packed)}
        indexing = time.perf_counter() - began
        pysam.faidx(str(plain))
        with pysam.FastaFile(str(plain)) as peer:
            readers: dict[str, Callable[[str, int, int], str]] = {name: x.fetch for name, x in genomes.items()}
            readers["pysam, plain"] = peer.fetch
            times: dict[str, list[float]] = {name: [] for name in readers}
            for _ in range(ROUNDS):
                for name, fetch in readers.items():
                    began = time.perf_counter()
                    for start in starts:
                        fetch("c", start, start + WINDOW)
                    times[name].append((time.perf_counter() - began) / NUM_FETCHES * 1e6)
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    result = {
        "machine": machine() | {"python": platform.python_version(), "pysam": pysam.__version__},
        "bases_per_fetch": WINDOW,
        "microseconds_per_fetch_median": medians,
        "microseconds_per_fetch_best": {name: round(min(values), 3) for name, values in times.items()},
        "indexing_both_files_s": round(indexing, 3),
        "speed_against_pysam": round(medians["pysam, plain"] / medians["longstrand, plain"], 2),
        "target_microseconds": TARGET_US,
        "met": medians["longstrand, plain"] <= TARGET_US,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
