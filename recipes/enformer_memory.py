"""Enformer's task as GENA-LM's memory model does it: numbers per bin, memory, context segments, eight-fold average.

    python recipes/enformer_memory.py --output runs/enformer_memory

The published protocol (GENA-LM, the section on recurrent memory): windows of 196,608 bases, 896 bins of 128 bases in
the middle, 5,313 tracks; ``[CLS] bin [SEP] bin [SEP] ...`` with a bin's numbers read at its [SEP]; segments of 512
tokens, 5 memory tokens, up to 19 bins a segment; a curriculum of 2, 4, 8, 16 and 24 segments, each stage from the best
of the one before; AdamW, 200,000 steps a stage, batch 128, softplus and Poisson loss. Test Pearson over regions x bins,
mean over tracks: one segment 0.590; trained on 24 and read with 48 segments 0.615; half of them as context 0.619;
averaged over eight strands and shifts 0.633. The data of Basenji: ``longstrand benchmark build gena/enformer_bins``.

Here the protocol runs on small data that it makes: contigs of random bases, two tracks in bins of 64 bases. In the
first a bin is high where it holds a motif. In the second, only if the last marker before it (up to three segments back)
was of kind A. Memory can know that, a single segment cannot. Nobody should compare these numbers with published ones.

The stages are fine-tunings of longer and longer windows (`STAGES` segments of eight bins), each from the model of the
one before, whose head is made anew. Arms: ``truncated`` (segments that know nothing of each other), ``memory``,
``context`` (memory, and a segment on the left that only fills it). Each is measured on test contigs, plainly and
averaged over the eight published views.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import longstrand as ls
from longstrand.data.rows import read_intervals
from longstrand.evaluation.tracks import pearson
from longstrand.genome.coverage import open_signal
from longstrand.genome.fasta import Genome
from longstrand.inference.writers import TrackLayout, track_file
from longstrand.runtime import generator, provenance, write_json
from longstrand.training.signals import chromosome_folds

BIN, BINS_A_SEGMENT, STAGES, CONTIGS, LENGTH = 64, 8, (2, 4), 10, 65_536
SEGMENT, WINDOW = BIN * BINS_A_SEGMENT, BIN * BINS_A_SEGMENT * STAGES[-1]
MOTIF, MARKERS = "TGACGTCAGC", ("CCCGGGTTTAAACCCGGG", "AAATTTGGGCCCAAATTT")
TRACKS = ("local", "remembered")
ARMS: Mapping[str, Mapping[str, Any]] = {
    "truncated": {"num_tokens": 0},
    "memory": {"num_tokens": 5},
    "context": {"num_tokens": 5, "context": {"left": 1}},
}


def make_data(folder: Path, *, seed: int = 0) -> None:
    """Write a genome, two tracks, and for each stage the windows that are read: each begins with a marker."""
    names, texts, heights = [f"c{number}" for number in range(CONTIGS)], {}, {}
    for number, name in enumerate(names):
        draw = generator(seed, number, "enformer")
        letters = np.array(list("ACGT"))[draw.integers(0, 4, LENGTH)]
        bins, kind = np.full((LENGTH // BIN, 2), 0.2), 0
        for at in range(0, LENGTH - BIN + 1, BIN):
            if at % WINDOW == 0:
                kind = int(draw.integers(2))
                letters[at : at + len(MARKERS[0])] = list(MARKERS[kind])
            elif draw.random() < 0.25:
                letters[at + 20 : at + 20 + len(MOTIF)] = list(MOTIF)
                bins[at // BIN] = 6.0, 6.0 if kind == 0 else 0.2
        texts[name], heights[name] = "".join(letters), draw.poisson(bins).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "g.fa").write_text("".join(f">{name}\n{text}\n" for name, text in texts.items()))
    for segments in STAGES:
        places = [(name, at, at + SEGMENT * segments) for name in names for at in range(0, LENGTH, WINDOW)]
        lines = [f"{name}\t{start}\t{end}\n" for name, start, end in places]
        (folder / f"windows{segments}.bed").write_text("".join(lines))
    layout = TrackLayout(dict.fromkeys(names, LENGTH), BIN, ("p",), {})
    for column, track in enumerate(TRACKS):
        path = folder / f"{track}.bedgraph"
        track_file(path).write(((name, 0, heights[name][:, column : column + 1]) for name in names), layout, path)


def train(arm: str, model: str, data: Path, output: Path, epochs: Sequence[int]) -> Path:
    """Fine-tune one arm stage by stage, and give the last model."""
    memory = {"segment_length": 160, "bins_per_segment": BINS_A_SEGMENT, "split": "left", **ARMS[arm]}
    for segments, passes in zip(STAGES, epochs, strict=True):
        result = ls.finetune(
            model, tracks=[data / f"{track}.bedgraph" for track in TRACKS], regions=data / f"windows{segments}.bed",
            genome=data / "g.fa", bin_bases=BIN, window=SEGMENT * segments, negative_ratio=0, jitter=0, fold=0,
            output=output / f"{arm}{segments}", memory=memory, epochs=passes, learning_rate=1e-3, strand="+",
            batch_size=16, resamples=0, baselines=False,
        )  # fmt: skip
        if result.model is None:
            raise SystemExit("stopped; the same command goes on")
        model = str(result.model)
    return Path(model)


def measure(folder: Path, data: Path) -> dict[str, list[float]]:
    """Correlate over regions x bins of the test contigs, plainly and with the eight views, each track."""
    genome, model = Genome(data / "g.fa"), ls.load_model(folder)
    windows = read_intervals(data / f"windows{STAGES[-1]}.bed").intervals
    tests = chromosome_folds(Counter(window.chrom for window in windows))[0]
    windows = [window for window in windows if window.chrom in tests]
    signals = [open_signal(data / f"{track}.bedgraph") for track in TRACKS]
    truth = np.concatenate([np.stack([one.bins(window, BIN) for one in signals], axis=1) for window in windows])
    found: dict[str, list[float]] = {}
    views: Mapping[str, dict[str, Any]] = {"plain": {"strand": "+"}, "eight views": {"tta": True}}
    for name, options in views.items():
        values = ls.predict_bases(model, [genome.fetch_interval(window) for window in windows], **options)
        found[name] = pearson(truth, np.concatenate(values)).tolist()
    return found


def main() -> None:
    """Make the data, train the arms, write a JSON file each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="mixed_6mer_1m")
    parser.add_argument("--epochs", type=int, nargs=2, default=(8, 8), help="of the two stages")
    parser.add_argument("--arms", default=",".join(ARMS))
    chosen = parser.parse_args()
    make_data(chosen.output / "data")
    for arm in chosen.arms.split(","):
        model = train(arm, chosen.model, chosen.output / "data", chosen.output, chosen.epochs)
        found = measure(model, chosen.output / "data")
        print(arm, found, flush=True)
        write_json(chosen.output / f"{arm}.json", {"pearson": found, "tracks": TRACKS, "provenance": provenance()})


if __name__ == "__main__":
    main()
