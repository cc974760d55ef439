"""Does recurrent memory carry a fact over distances it was never trained on? A marker, distractors, a question.

    python recipes/memory_task.py --output runs/memory_task

A row is a number of segments of random tokens. One token of the first segment is a marker, A or B, which decides the
label; what is asked is asked after the last segment. The model is trained on few segments (a curriculum) and
measured on many, three seeds, beside the truncated encoder (the same network without memory tokens, which sees the last
segment only). ``--ablations`` adds one run for each setting that matters, changed alone; ``--only NAME`` runs
those that are named.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForSequenceClassification
from longstrand.runtime import provenance, read_json, seed_everything, write_json

CLS, SEP, FIRST, VOCABULARY = 1, 2, 8, 24
MARKERS = (6, 7)
LENGTHS = (1, 2, 4, 8, 16, 32, 64)
SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
HEAD = {"kind": "sequence", "problem": "single_label", "num_outputs": 2, "pooling": "cls"}


@dataclass(frozen=True)
class Trial:
    """Settings of one run: stages are (segments, steps)."""

    name: str = "memory"
    num_tokens: int = 4
    room: int = 12
    stages: tuple[tuple[int, int], ...] = ((1, 150), (2, 250), (4, 400))
    mixed: bool = True
    learning_rate: float = 1e-3
    bptt_depth: int | None = None
    loss: str = "all"
    batch_size: int = 32
    quirks: tuple[str, ...] = ()


def make_model(trial: Trial) -> Any:
    """Make the tiny recurrent classifier of a trial."""
    added = trial.num_tokens + (3 if trial.num_tokens else 2)
    memory = {
        "num_tokens": trial.num_tokens,
        "segment_length": trial.room + added,
        "bptt_depth": trial.bptt_depth,
        "loss": trial.loss,
        "cls_token_id": CLS,
        "sep_token_id": SEP,
    }
    config = preset(
        "tiny", vocab_size=VOCABULARY, **SIZE, heads={"sequence": HEAD}, memory=memory, quirks=list(trial.quirks)
    )
    return LongstrandForSequenceClassification(config)


def make_batch(
    random: np.random.Generator, trial: Trial, segments: int, rows: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw rows ``[CLS] x [SEP]`` of whole segments and their labels."""
    content = random.integers(FIRST, VOCABULARY, (rows, segments * trial.room))
    labels = random.integers(0, 2, rows)
    content[np.arange(rows), random.integers(0, trial.room, rows)] = np.array(MARKERS)[labels]
    ends = [np.full((rows, 1), token) for token in (CLS, SEP)]
    ids = np.concatenate((ends[0], content, ends[1]), axis=1)
    return torch.from_numpy(ids), torch.from_numpy(labels)


def train(trial: Trial, seed: int) -> Any:
    """Train through the stages; with ``mixed``, each step takes any number of segments up to the stage's."""
    seed_everything(seed)
    random = np.random.default_rng(seed)
    model = make_model(trial).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=trial.learning_rate, weight_decay=0.01)
    total, done = sum(steps for _, steps in trial.stages), 0
    for segments, steps in trial.stages:
        for _ in range(steps):
            number = int(random.integers(1, segments + 1)) if trial.mixed else segments
            ids, labels = make_batch(random, trial, number, trial.batch_size)
            for group in optimizer.param_groups:
                group["lr"] = trial.learning_rate * min(1.0, (done + 1) / 50, 2 * (total - done) / total)
            optimizer.zero_grad()
            model(ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            done += 1
    return model.eval()


@torch.no_grad()
def measure(model: Any, trial: Trial, rows: int = 256) -> dict[int, float]:
    """Give the accuracy on new rows by number of segments."""
    found = {}
    for segments in LENGTHS:
        ids, labels = make_batch(np.random.default_rng(10_000 + segments), trial, segments, rows)
        found[segments] = float((model(ids).logits.argmax(-1) == labels).float().mean())
    return found


BASE = Trial()
ABLATIONS = (
    replace(BASE, name="loss on the last segment", loss="last"),
    replace(BASE, name="no curriculum", stages=((4, 800),), mixed=False),
    replace(BASE, name="fixed lengths", mixed=False),
    replace(BASE, name="learning rate 1e-4", learning_rate=1e-4),
    replace(BASE, name="bptt_depth 0", bptt_depth=0),
    replace(BASE, name="bptt_depth 0, loss on the last segment", bptt_depth=0, loss="last"),
    replace(BASE, name="one memory token", num_tokens=1),
)
TRIALS = (BASE, replace(BASE, name="truncated encoder", num_tokens=0), *ABLATIONS)


def main() -> None:
    """Run all trials, print a line for each seed, write ``results.json``; what is in it already is not repeated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[trial.name for trial in TRIALS], help="these trials, no others")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "results.json"
    results: dict[str, Any] = read_json(file)["trials"] if file.exists() else {}
    usual = TRIALS if arguments.ablations else TRIALS[:2]
    for trial in usual if arguments.only is None else [trial for trial in TRIALS if trial.name in arguments.only]:
        for seed in range(arguments.seeds):
            if any(entry["seed"] == seed for entry in results.get(trial.name, [])):
                continue
            begun = time.perf_counter()
            found = measure(train(trial, seed), trial)
            seconds = round(time.perf_counter() - begun, 1)
            results.setdefault(trial.name, []).append({"seed": seed, "accuracy": found, "seconds": seconds})
            print(f"{trial.name:<26} seed {seed}  " + "  ".join(f"{n}: {v:.3f}" for n, v in found.items()), seconds)
            write_json(file, {"trials": results, "provenance": provenance()})


if __name__ == "__main__":
    main()
