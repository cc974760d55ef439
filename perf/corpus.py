"""Time a corpus: a thousand genomes through the ordinary reader, and an index with the contig counts of 180 Gb.

Run ``python perf/corpus.py [files] [large]`` on an idle machine; the result goes to ``perf/results/corpus.json``. The
thousand files (1 Mb each, one in ten with 300 contigs, one in ten gzip) are written to a temporary folder first. The
large index is written by the ordinary writer from made-up places; no bases lie behind it, so intervals are drawn from
it, not read.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.data.corpus import GenomeEntry, expand, open_corpus
from longstrand.data.examples import MaskedExamples
from longstrand.data.genomes import GenomeSet, GenomeSource, Sampling, _read, write_index
from longstrand.data.windows import TrainingWindows, choose_holdout
from longstrand.genome.fasta_scan import Contig, FastaIndex
from longstrand.runtime import peak_resident, provenance
from longstrand.tokenization.hub import load_tokenizer

PART = float(os.environ.get("CORPUS_PART", "1"))  # below 1: only to see that it runs
NUM_FILES, SIZE = int(1000 * PART), 1_000_000
CLASSES = {  # species, bases (10^9), contigs a genome: chromosome-level bacteria, scaffolds elsewhere (assumed)
    "bacteria": (667, 17.1, 20), "fungi": (45, 2.3, 300), "invertebrates": (39, 20.8, 20_000),
    "protozoa": (10, 0.5, 1000), "mammals": (31, 69.8, 30_000), "other vertebrates": (57, 63.4, 30_000),
}  # fmt: skip
"""The mix of the Nucleotide Transformer's multispecies data; with 5 gaps in a contig of vertebrates."""
LARGE = "as_large_as_all.fa"
NO_GAPS = np.empty((0, 2), np.int64)
MUST = {"open_seconds": 20.0, "peak_bytes": 1_000_000_000, "window_ratio": 1.1}
STRETCH = {"open_seconds": 5.0, "peak_bytes": 300_000_000, "window_ratio": 1.0}


def write_files(folder: Path) -> Path:
    """Write the thousand genomes, each a turned piece of random bases, and their corpus file."""
    random = np.random.default_rng(0)
    text, rows = np.frombuffer(b"ACGT", np.uint8)[random.integers(0, 4, 2 * SIZE)].tobytes(), ["fasta\tspecies\ttaxon"]
    for number, turn in enumerate(random.integers(0, SIZE, NUM_FILES).tolist()):
        contigs = 300 if number % 10 == 0 else 2
        size = SIZE // contigs
        places = [(c, turn + c * size) for c in range(contigs)]
        records = b"".join(b">contig%d of it\n%s\n" % (c, text[start : start + size]) for c, start in places)
        name = f"{number}.fa.gz" if number % 10 == 5 else f"{number}.fa"
        (folder / name).write_bytes(gzip.compress(records, 1) if name.endswith("gz") else records)
        rows.append(f"{name}\tGenus{number} species\t{'one' if number % 2 else 'two'}")
    with open(folder / LARGE, "wb") as file:
        for number, turn in enumerate(random.integers(0, SIZE, NUM_FILES).tolist()):
            file.write(b">contig%d of it\n%s\n" % (number, text[turn : turn + SIZE]))
    (folder / "corpus.tsv").write_text("\n".join(rows) + "\n")
    return folder / "corpus.tsv"


def alone(work: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Run something in a process of its own, for its peak of memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, args)


def open_all(corpus: Path) -> dict[str, Any]:
    """Open the corpus and lay out training windows with 5 % of each genome held out."""
    before, start = peak_resident(), time.perf_counter()
    genomes = open_corpus(expand([GenomeEntry(fasta=corpus)]), sampling=Sampling(temperature=2.0))
    opened = time.perf_counter() - start
    holdout = choose_holdout(genomes, fraction=0.05, seed=0, min_bases=2000)
    windows = TrainingWindows(genomes, num_bases=3000, num_samples=10_000, seed=1, holdout=holdout)
    laid_out = time.perf_counter() - start
    windows[0]
    facts = {"open_seconds": opened, "until_windows_seconds": laid_out, "peak_bytes": peak_resident()}
    return facts | {"bytes_before": before, "open_files": len(os.listdir("/proc/self/fd"))}


def window_times(corpus: Path) -> dict[str, Any]:
    """Time windows from all genomes, from one of 1 Mb and from one as large as all: read, and ready for training."""
    genomes = open_corpus(expand([GenomeEntry(fasta=corpus)]))
    sets = {"thousand": genomes}
    sets |= {name: open_corpus([GenomeEntry(fasta=corpus.parent / name)]) for name in ("1.fa", LARGE)}
    windows = {k: TrainingWindows(v, num_bases=3000, num_samples=200_000, seed=1) for k, v in sets.items()}
    tokenizer = load_tokenizer("mixed_6mer_1m")
    ready = {k: MaskedExamples(v, tokenizer, max_tokens=512, seed=1) for k, v in windows.items()}
    return in_turns(windows, 2000) | {"masked_examples_of_512_tokens": in_turns(ready, 500)}


def in_turns(sets: dict[str, Any], number: int) -> dict[str, Any]:
    """Time so many items of each set in turns; medians of rounds, and ratios to the first set."""
    times: dict[str, list[float]] = {name: [] for name in sets}
    for repeat in range(9):
        for name, found in sets.items():
            start = time.perf_counter()
            for index in range(repeat * number, repeat * number + number):
                found[index]
            if repeat > 1:
                times[name].append((time.perf_counter() - start) / number * 1e6)
    medians = {f"{name}_microseconds": statistics.median(found) for name, found in times.items()}
    first, *others = sets
    ratios = {f"ratio_to_{k}": statistics.median(a / b for a, b in zip(times[first], times[k])) for k in others}
    return medians | ratios


def _gaps(length: int) -> np.ndarray:
    starts = length // 6 * np.arange(1, 6)
    return np.stack((starts, starts + 150), axis=1)


def made_up() -> Iterator[FastaIndex]:
    """Give the places of 849 genomes, without bases."""
    random = np.random.default_rng(1)
    for kind, (species, billions, num_contigs) in CLASSES.items():
        for number in range(max(1, int(species * PART))):
            shares = random.pareto(1.2, num_contigs) + 0.01
            lengths = np.maximum(200, shares / shares.sum() * billions * 1e9 / species).astype(int).tolist()
            names = [f"{kind[:2].upper()}{number:04d}_{contig:08d}.1" for contig in range(num_contigs)]
            has_gaps = kind in ("mammals", "other vertebrates")
            gaps = {
                name: _gaps(length) if has_gaps and length > 5000 else NO_GAPS for name, length in zip(names, lengths)
            }
            places = {name: Contig(length, 0, length) for name, length in zip(names, lengths)}
            yield FastaIndex(Path(__file__), places, gaps, f"sha256:{kind}{number}", {})


def open_large(folder: Path) -> dict[str, Any]:
    """Open the large index, lay out windows with a hold-out, and draw places."""
    start = time.perf_counter()
    found = _read(folder)
    assert found is not None
    taxa = [name for name, (species, *_) in CLASSES.items() for _ in range(max(1, int(species * PART)))]
    sources = [GenomeSource(f"{number}.fa", name=f"g{number}", taxon=taxon) for number, taxon in enumerate(taxa)]
    genomes = GenomeSet(*found, sources, folder=folder)
    opened = time.perf_counter() - start
    holdout = choose_holdout(genomes, fraction=0.01, seed=0)
    held = time.perf_counter() - start
    windows = TrainingWindows(genomes, num_bases=6100, num_samples=1_000_000, seed=1, holdout=holdout)
    laid_out = time.perf_counter() - start
    start = time.perf_counter()
    for index in range(20_000):
        windows._place(index, "+")
    drawn = (time.perf_counter() - start) / 20_000
    return {
        "contigs": len(genomes.contigs), "stretches": len(windows.regions), "bases": windows.regions.num_bases,
        "open_seconds": opened, "hold_out_seconds": held - opened, "until_windows_seconds": laid_out,
        "draw_microseconds": drawn * 1e6, "peak_bytes": peak_resident(),
        "index_bytes": sum(file.stat().st_size for file in folder.iterdir()),
    }  # fmt: skip


def measure_files(folder: Path) -> dict[str, Any]:
    start = time.perf_counter()
    corpus = write_files(folder)
    written = time.perf_counter() - start
    first, again = alone(open_all, corpus), alone(open_all, corpus)
    return {"first_time": first, "with_indexes": again, "windows": alone(window_times, corpus),
            "writing_the_files_seconds": written}  # fmt: skip


def measure_large(folder: Path) -> dict[str, Any]:
    start = time.perf_counter()
    write_index(folder / "large", made_up())
    writing = time.perf_counter() - start
    return {"index_of_180_gb": alone(open_large, folder / "large") | {"writing_seconds": writing}}


PARTS = {"files": measure_files, "large": measure_large}


def main() -> None:
    target = Path(__file__).parent / "results" / "corpus.json"
    result = json.loads(target.read_text()) if target.exists() else {}
    for part in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory() as name:
            os.environ["LONGSTRAND_CACHE"] = str(Path(name) / "cache")
            result |= PARTS[part](Path(name))
    result |= {
        "what": f"{NUM_FILES} genomes of {SIZE:,} bases: opening (first: indexing too), memory, windows of 3,000 bases",
        "targets": {"must": MUST, "stretch": STRETCH},
        "load_of_the_machine": round(os.getloadavg()[0], 1),
        "provenance": provenance(["python", "perf/corpus.py"]),
    }
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
