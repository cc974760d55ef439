"""Time and memory of training a tokenizer, against ``tokenizers`` on the same sample; the merges must be the same.

Run ``python perf/tokenizer_training.py 50 100 200`` (millions of bases; up to 32 GB) or with smaller sizes; the
result goes to ``perf/results/tokenizer_training.json``, where rows of other sizes stay. The sample is made of the
shared genomes (or random DNA) and mutated copies of them, in pieces of 5,000 bases. Each training is a process of its
own with one thread; the two of a size run at the same time where the memory is enough, else one after the other.
"""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np

from longstrand.genome.fasta import Genome
from longstrand.runtime import data_root, peak_resident, provenance
from longstrand.tokenization.train import SPECIAL_TOKENS, train_bpe

VOCAB, PIECE = 32_000, 5000
BYTES_A_BASE = 70
"""What a training takes, roughly: decides whether there is room for two at once."""


def sample(num_bases: int) -> Iterator[str]:
    """Give pieces of real genomes and, when they are used up, of copies with 5 % of the bases changed."""
    data = data_root()
    paths = sorted((data / "data" / "genomes").glob("*.fa.gz")) if data else []
    rng, total = np.random.default_rng(0), 0
    for copy in itertools.count():
        for genome in map(Genome, paths):
            for chrom, length in genome.contigs.items():
                for start in range(0, length, PIECE):
                    text = genome.fetch(chrom, start, min(start + PIECE, length)).upper()
                    codes = np.frombuffer(text.encode(), np.uint8).copy()
                    if copy:
                        changed = rng.random(len(codes)) < 0.05
                        codes[changed] = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, int(changed.sum()))]
                    codes[~np.isin(codes, np.frombuffer(b"ACGT", np.uint8))] = ord("N")
                    total += len(codes)
                    yield codes.tobytes().decode()
                    if total >= num_bases:
                        return
        if not paths:
            yield np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, PIECE)].tobytes().decode()
            total += PIECE
            if total >= num_bases:
                return


def library(num_bases: int) -> Any:
    """Train as a user of the library does, on the same pieces, cut as ours are."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("[-N]"), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, min_frequency=2, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=list("ACGTN"),
        limit_alphabet=5, max_token_length=64, show_progress=False,
    )  # fmt: skip
    pieces = (text[start : start + 1000] for text in sample(num_bases) for start in range(0, len(text), 1000))
    made.train_from_iterator(pieces, trainer=trainer)
    return json.loads(made.to_str())["model"]["merges"]


def ours(num_bases: int) -> Any:
    return json.loads(train_bpe(sample(num_bases), vocab_size=VOCAB).definition)["model"]["merges"]


def train(which: str, num_bases: int) -> dict[str, Any]:
    for _ in sample(PIECE):  # indexes are made before the clock starts
        pass
    logging.disable(logging.WARNING)
    train_bpe(["ACGT" * 9], vocab_size=VOCAB)  # what is compiled lies in the cache
    before, start = peak_resident(), time.process_time()
    merges = {"ours": ours, "library": library}[which](num_bases)
    seconds = time.process_time() - start
    return {"processor_seconds": seconds, "peak_bytes": peak_resident(), "before_bytes": before, "merges": merges}


def main() -> None:
    sizes = [int(float(word) * 1e6) for word in sys.argv[1:]] or [50_000_000, 100_000_000, 200_000_000]
    target = Path(__file__).parent / "results" / "tokenizer_training.json"
    kept = json.loads(target.read_text())["rows"] if target.exists() else []
    rows = [row for row in kept if row["bases"] not in sizes]
    for size in sizes:
        room = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        at_once = 2 if 2 * size * BYTES_A_BASE < room else 1
        with multiprocessing.get_context("spawn").Pool(at_once, maxtasksperchild=1) as pool:
            both = pool.starmap(train, [("ours", size), ("library", size)], chunksize=1)
        found = dict(zip(("ours", "library"), both))
        same = found["ours"].pop("merges") == found["library"].pop("merges")
        rows.append({"bases": size, "same_merges": same, "load": round(os.getloadavg()[0], 1), **found})
        rows.sort(key=lambda row: row["bases"])
        slopes = {
            which: float(np.polyfit([row["bases"] for row in rows], [row[which]["peak_bytes"] for row in rows], 1)[0])
            for which in ("ours", "library")
            if len(rows) > 1
        }
        result = {
            "what": f"training {VOCAB:,} tokens; peak resident memory of the process and its slope in bytes a base",
            "rows": rows,
            "bytes_a_base": slopes,
            "times_as_fast": {
                row["bases"]: row["library"]["processor_seconds"] / row["ours"]["processor_seconds"]
                for row in rows
                if "processor_seconds" in row["ours"]
            },
            "must": "slope and peak <= tokenizers (stretch: half of it); an own trainer at least 1.5 times as fast",
            "provenance": provenance(["python", "perf/tokenizer_training.py", *sys.argv[1:]]),
        }
        target.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
