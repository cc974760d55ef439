"""T1: tracks of eight outputs in one pass against eight passes of one, and memory against the length of a contig.

    python perf/tracks.py

A random model (2 layers of 128, 6-mers, a bin head of 8 outputs, bins of 96 bases) reads windows of 1,536 bases, one
every 1,152. Arm ``together`` writes one Zarr of eight columns, arm ``apart`` runs `predict_tracks` once an output, each
in a process of its own; CPU seconds of the process beside wall seconds, without loading. ``folder`` is the one pass
with all that a folder holds (eight BigWigs, browser files, the page with pictures). Files of one output are compared
byte for byte with those of the folder. Memory: peak resident memory of a process that writes the bins of a contig that
fills its buffers, and of one five times longer.

Writes perf/results/tracks.json.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from longstrand.models.config import preset
from longstrand.models.networks import NETWORKS
from longstrand.runtime import machine, provenance, write_json
from longstrand.tokenization.kmer import make_kmer
from longstrand.tracks.jobs import predict_tracks

OUTPUTS, SHORT, LONG = 8, 60_000, 300_000
MUST_RATIO, MUST_GROWTH = 6.0, 0.15
OPTIONS = {"window": 1536, "step": 1152, "threads": 1}


def make_model() -> torch.nn.Module:
    """Make the random model."""
    tokenizer = make_kmer(6)
    names = [f"track{number}" for number in range(OUTPUTS)]
    head = {"kind": "bin", "problem": "counts", "num_outputs": OUTPUTS, "bin_bases": 96, "class_names": names,
            "bin_token_id": tokenizer.sep_token_id}  # fmt: skip
    config = preset("tiny", vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_token_id, hidden_size=128,
                    num_hidden_layers=2, num_attention_heads=2, intermediate_size=256, heads={"bin": head})  # fmt: skip
    torch.manual_seed(0)
    model = NETWORKS["bin"](config).eval()
    model.tokenizer = tokenizer
    return model


def child(arm: str, length: int) -> None:
    """Run an arm and print what it cost as JSON."""
    torch.set_num_threads(1)
    model, draw = make_model(), random.Random(0)
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        (folder / "g.fa").write_text(">one\n" + "".join(draw.choices("ACGT", k=length)) + "\n")
        predict_tracks(model, folder / "g.fa", folder / "warm.zarr", regions=_bed(folder, 3000), **OPTIONS)
        before, started = time.process_time(), time.perf_counter()
        genome, places = folder / "g.fa", range(OUTPUTS) if arm == "apart" else [None]
        for number in places:
            one = {} if number is None else {"outputs": f"prediction_track{number}"}
            predict_tracks(model, genome, folder / ("all" if arm == "folder" else f"{number}.zarr"), **one, **OPTIONS)
        cost = {"cpu_seconds": time.process_time() - before, "seconds": time.perf_counter() - started}
        if arm == "folder":
            for number in (0, OUTPUTS - 1):
                name = f"prediction_track{number}"
                predict_tracks(model, genome, folder / f"{name}.bw", outputs=name, **OPTIONS)
                alone, beside = folder / f"{name}.bw", folder / "all" / f"{name}.bw"
                assert alone.read_bytes() == beside.read_bytes(), "one run of eight outputs is not eight runs"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**cost, "bases": length, "peak_MB": peak}))


def _bed(folder: Path, end: int) -> Path:
    path = folder / "warm.bed"
    path.write_text(f"one\t0\t{end}\n")
    return path


def run(arm: str, length: int) -> dict[str, float]:
    """Run `child` in a fresh process."""
    words = [sys.executable, __file__, arm, str(length)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and write the result."""
    together, apart, long = run("together", SHORT), run("apart", SHORT), run("together", LONG)
    folder = run("folder", SHORT)
    ratio = apart["cpu_seconds"] / together["cpu_seconds"]
    growth = long["peak_MB"] / together["peak_MB"] - 1
    result = {
        "what": __doc__, "together": together, "apart": apart, "long": long, "folder": folder,
        "ratio_of_cpu": ratio, "must_ratio": MUST_RATIO, "growth_of_peak": growth, "must_growth": MUST_GROWTH,
        "bit_for_bit": True, "bases_per_cpu_second": together["bases"] / together["cpu_seconds"],
        "holds": ratio >= MUST_RATIO and growth <= MUST_GROWTH, "machine": machine(), "provenance": provenance(),
    }  # fmt: skip
    write_json(Path(__file__).with_name("results") / "tracks.json", result)
    print(
        json.dumps(
            {key: value for key, value in result.items() if key not in ("what", "machine", "provenance")}, indent=1
        )
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(sys.argv[1], int(sys.argv[2]))
    else:
        main()
