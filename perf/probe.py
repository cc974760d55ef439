"""What an embedding cache of 12 layers x 3 poolings costs, against one plain forward pass over the same rows.

    python perf/probe.py [--rows 96] [--layers 12]

Counts the calls of the encoder and times both, interleaved; the ratio says what keeping every layer and writing the
cache adds to the pass itself. Writes perf/results/probe.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.benchmarks.probing.states import cache_states
from longstrand.data.labelled import LabelledTable
from longstrand.data.labelled_files import RawTable
from longstrand.data.targets import Task
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import predict
from longstrand.models.config import preset
from longstrand.models.networks import NETWORKS
from longstrand.runtime import machine, seed_everything, write_json
from longstrand.tokenization.kmer import make_kmer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    tokenizer = make_kmer(3, overlapping=False)
    seed_everything(0)
    size = {"hidden_size": options.hidden, "num_hidden_layers": options.layers, "num_attention_heads": 4}
    fixed = {"intermediate_size": 4 * options.hidden, "vocab_size": tokenizer.vocab_size}
    model = NETWORKS["encoder"](preset("tiny", **size, **fixed, pad_token_id=tokenizer.pad_token_id)).eval()
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list("ACGT"), 300)) for _ in range(options.rows)]
    raw = RawTable("simulated", list(range(options.rows)), texts, {})
    table = LabelledTable(raw, Task("single_label", ("0", "1"), ("l",)), random.integers(0, 2, options.rows))
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))
    times: dict[str, list[float]] = {"one layer, one pooling": [], "all layers and poolings, kept": []}
    counts: dict[str, int] = {}
    settings = PredictOptions(output="embeddings", batch_tokens=8192)
    for _ in range(options.rounds + 1):
        for name in times:
            passes.clear()
            start = time.perf_counter()
            if name.startswith("one"):
                list(predict(model, texts, tokenizer=tokenizer, options=settings))
            else:
                with tempfile.TemporaryDirectory() as folder:
                    more: dict[str, Any] = {"identity": {"model": "simulated"}, "sampling": {}}
                    cache_states(model, {"train": table}, Path(folder), tokenizer=tokenizer, options=settings, **more)
            times[name].append(time.perf_counter() - start)
            counts[name] = len(passes)
    seconds = {name: statistics.median(values[1:]) for name, values in times.items()}
    first, second = seconds.values()
    report = {
        "what": f"{options.rows} rows of 300 bases, {options.layers} layers + embeddings x 3 poolings",
        "forward_calls": counts,
        "met": len(set(counts.values())) == 1,
        "seconds": seconds,
        "ratio": second / first,
        "machine": machine(),
    }
    write_json(Path(__file__).parent / "results" / "probe.json", report)
    print(f"{report['what']}: encoder calls {counts}; time ratio {second / first:.2f}")


if __name__ == "__main__":
    main()
