"""Time `longstrand predict` on ten sequences, cold, against importing the libraries that it stands on.

Run ``python perf/predict_cold.py [REPEATS]`` on an idle machine; the result goes to ``perf/results/predict_cold.json``.
Each round runs every command once, in turn, as a new process, so that noise hits all alike. Two models with random
weights: ``small`` (10 M parameters, vocabulary 4,096) and ``base`` (110 M; GENA-LM's 32,000 words where the data folder
is). The peer of the target is ``import torch, transformers``; what a transformers user really waits for, ``from
transformers import PreTrainedModel``, stands beside it. ``--device cpu`` keeps a GPU's start-up out.
"""

from __future__ import annotations

import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from longstrand.runtime import data_root, machine

RESULTS = Path(__file__).parent / "results" / "predict_cold.json"
MUST, STRETCH = 1.5, 1.2
PEER = "import torch, transformers"
SECOND_PEER = "import torch; from transformers import PreTrainedModel"
MODELS = {"small": 4096, "base": 32_000}


def make_inputs(folder: Path) -> None:
    """Write ten sequences of 300 bases, and one classifier a size with a tokenizer trained on random DNA."""
    import torch

    from longstrand.models.checkpoint import save_checkpoint
    from longstrand.models.config import preset
    from longstrand.models.pretrained import LongstrandForSequenceClassification
    from longstrand.tokenization.hub import load_tokenizer
    from longstrand.tokenization.train import train_bpe

    published = (data_root() or folder) / "data" / "tokenizers" / "gena_t2t_1000h_multi_32k"
    letters = random.Random(0)
    rows = ["".join(letters.choices("ACGT", k=300)) for _ in range(10)]
    (folder / "ten.csv").write_text("sequence\n" + "\n".join(rows) + "\n")
    pieces = ["".join(letters.choices("ACGT", k=1000)) for _ in range(400)]
    torch.manual_seed(0)
    head = {"kind": "sequence", "problem": "single_label", "num_outputs": 2}
    for size, vocab_size in MODELS.items():
        if size == "base" and published.is_dir():
            tokenizer = load_tokenizer(published)
        else:
            tokenizer = train_bpe(pieces, vocab_size=vocab_size)
        config = preset(size, vocab_size=tokenizer.vocab_size, heads={"sequence": head})
        save_checkpoint(LongstrandForSequenceClassification(config), tokenizer, folder / size)


def seconds(command: list[str]) -> float:
    """Measure one process from start to end."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    program = str(Path(sys.executable).with_name("longstrand"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder)
        commands = {PEER: [sys.executable, "-c", PEER], SECOND_PEER: [sys.executable, "-c", SECOND_PEER]}
        for size in MODELS:
            words = ["predict", str(folder / size), str(folder / "ten.csv"), "-o", str(folder / f"{size}.csv")]
            commands[f"longstrand predict, {size}"] = [program, *words, "--overwrite", "--device", "cpu"]
        for command in commands.values():
            seconds(command)  # byte code and page cache
        rounds = [{name: seconds(command) for name, command in commands.items()} for _ in range(repeats)]
    write_result(rounds)


def write_result(rounds: list[dict[str, float]]) -> None:
    """Store medians and the median of the ratios of each round."""
    names = list(rounds[0])
    ours = [name for name in names if name.startswith("longstrand")]

    def ratio(name: str, peer: str) -> float:
        return round(statistics.median(item[name] / item[peer] for item in rounds), 3)

    ratios = {name: {peer: ratio(name, peer) for peer in (PEER, SECOND_PEER)} for name in ours}
    result = {
        "machine": machine() | {"python": platform.python_version()},
        "rounds": len(rounds),
        "median_s": {name: round(statistics.median(item[name] for item in rounds), 3) for name in names},
        "best_s": {name: round(min(item[name] for item in rounds), 3) for name in names},
        "ratio": ratios,
        "target": {"peer": PEER, "model": ours[0], "must": MUST, "stretch": STRETCH},
        "met": ratios[ours[0]][PEER] <= MUST,
        "stretch_met": ratios[ours[0]][PEER] <= STRETCH,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
