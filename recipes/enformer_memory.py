"""Enformer's task as GENA-LM's memory model does it: numbers per bin, memory, context segments, eight-fold average.

    python recipes/enformer_memory.py --output runs/enformer_memory

The published protocol (GENA-LM, the RMT section): windows of 196,608 bases, 896 bins of 128 bases in the middle, 5,313
tracks; ``[CLS] bin [SEP] bin [SEP] ...`` with a bin's numbers read at its [SEP]; segments of 512 tokens, 5 memory
tokens, up to 19 bins a segment; a curriculum of 2, 4, 8, 16 and 24 segments, each stage from the best of the one
before; AdamW, 200,000 steps a stage, batch 128, softplus and Poisson loss. Test Pearson over regions x bins, mean over
tracks: one segment 0.590; trained on 24 and read with 48 segments 0.615; half of them as context 0.619; averaged over
eight strands and shifts 0.633. The data of Basenji themselves: ``longstrand benchmark build gena/enformer_bins``.

Here the same protocol runs on small data that it makes: contigs of random bases, two tracks in bins of 64 bases. In the
first a bin is high where it holds a motif. In the second, only if the last marker before it (two or more segments back)
was of kind A. Memory can know that, a single segment cannot. Nobody should compare these numbers with published ones.

Arms: ``truncated`` (segments that know nothing of each other), ``memory``, ``context`` (memory, and segments on the
left that only fill it). Each is measured plainly and averaged over the eight published views.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import longstrand as ls
from longstrand.data.rows import read_intervals
from longstrand.evaluation.tracks import pearson
from longstrand.genome.coverage import open_signal
from longstrand.genome.fasta import Genome
from longstrand.genome.regions import windows_around
from longstrand.inference.writers import TrackLayout, track_file
from longstrand.runtime import generator, provenance, write_json
from longstrand.training.signals import chromosome_folds

BIN, WINDOW, CONTIGS, LENGTH = 64, 2048, 10, 40_960
MOTIF, MARKERS = "TGACGTCAGC", ("CCCGGGTTTAAACCCGGG", "AAATTTGGGCCCAAATTT")
ARMS: Mapping[str, Mapping[str, Any]] = {
    "truncated": {"num_tokens": 0},
    "memory": {"num_tokens": 5},
    "context": {"num_tokens": 5, "context": {"left": 1}},
}


def make_data(folder: Path, *, seed: int = 0) -> dict[str, Path]:
    """Write a genome, two tracks and the windows that are read."""
    names, texts, heights = [f"c{number}" for number in range(CONTIGS)], {}, {}
    for number, name in enumerate(names):
        draw = generator(seed, number, "enformer")
        letters = np.array(list("ACGT"))[draw.integers(0, 4, LENGTH)]
        bins = np.full((LENGTH // BIN, 2), 0.2)
        kind = 0
        for at in range(0, LENGTH - BIN, BIN):
            if at % WINDOW == 0:
                kind = int(draw.integers(2))
                letters[at : at + len(MARKERS[0])] = list(MARKERS[kind])
            elif draw.random() < 0.25:
                letters[at + 20 : at + 20 + len(MOTIF)] = list(MOTIF)
                bins[at // BIN] = 6.0, 6.0 if kind == 0 else 0.2
        texts[name], heights[name] = "".join(letters), draw.poisson(bins).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    files = {key: folder / name for key, name in (("genome", "g.fa"), ("regions", "windows.bed"))}
    files["genome"].write_text("".join(f">{name}\n{text}\n" for name, text in texts.items()))
    starts = range(0, LENGTH - WINDOW + 1, WINDOW)
    files["regions"].write_text("".join(f"{name}\t{at}\t{at + WINDOW}\n" for name in names for at in starts))
    layout = TrackLayout(dict.fromkeys(names, LENGTH), BIN, ("p",), {})
    for column, track in enumerate(("local", "remembered")):
        files[track] = folder / f"{track}.bedgraph"
        chunks = ((name, 0, heights[name][:, column : column + 1]) for name in names)
        track_file(files[track]).write(chunks, layout, files[track])
    return files


def train(arm: str, model: str, files: Mapping[str, Path], output: Path, epochs: int) -> Any:
    """Fine-tune one arm; the segments hold eight bins."""
    memory = {"segment_length": 160, "bins_per_segment": 8, "split": "left", **ARMS[arm]}
    if memory["num_tokens"]:
        memory["curriculum"] = {"stages": [2, 4], "steps": [60]}
    return ls.finetune(
        model, tracks=[files["local"], files["remembered"]], regions=files["regions"], genome=files["genome"],
        bin_bases=BIN, window=WINDOW, negative_ratio=0, jitter=0, fold=0, output=output / arm, memory=memory,
        epochs=epochs, learning_rate=1e-3, strand="+", batch_size=16, resamples=0,
    )  # fmt: skip


def measure(result: Any, files: Mapping[str, Path]) -> dict[str, list[float]]:
    """Correlate over regions x bins of the test contigs, plainly and with the eight views, each track."""
    genome, model = Genome(files["genome"]), ls.load_model(result.model)
    windows, _ = windows_around(read_intervals(files["regions"]), genome, WINDOW)
    tests = chromosome_folds(Counter(window.chrom for window in windows))[0]
    windows = [window for window in windows if window.chrom in tests]
    signals = [open_signal(files[name]) for name in ("local", "remembered")]
    truth = np.concatenate([np.stack([one.bins(window, BIN) for one in signals], axis=1) for window in windows])
    texts, found = [genome.fetch_interval(window) for window in windows], {}
    for name, options in (("plain", {"strand": "+"}), ("eight views", {"tta": True})):
        values = ls.predict_bases(model, texts, **options)
        found[name] = pearson(truth, np.concatenate(values)).tolist()
    return found


def main() -> None:
    """Make the data, train the arms, write ``result.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="mixed_6mer_1m")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--arms", default=",".join(ARMS))
    chosen = parser.parse_args()
    files = make_data(chosen.output / "data")
    results = {}
    for arm in chosen.arms.split(","):
        result = train(arm, chosen.model, files, chosen.output, chosen.epochs)
        results[arm] = measure(result, files)
        print(arm, results[arm], flush=True)
    write_json(chosen.output / "result.json", {"arms": results, "provenance": provenance()})


if __name__ == "__main__":
    main()
