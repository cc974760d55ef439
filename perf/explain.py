"""Time attributions against what one would use instead, on the same machine in the same run.

Run ``python perf/explain.py [--num 40]``; the result goes to
``perf/results/explain.json``. Integrated gradients: captum's `LayerIntegratedGradients` on the word vectors with
50 steps, as many examples at once as our batches hold; ours with 50
steps, too, and as it does by itself. Mutagenesis: a loop over ``predict`` of each variant, and one call of ``predict``
with all variants of a sequence.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from captum.attr import LayerIntegratedGradients

import longstrand as ls
from longstrand.explain.attribution import attribute
from longstrand.explain.gradient import baseline_ids
from longstrand.explain.target import target_of
from longstrand.models.config import preset
from longstrand.models.networks import SequenceClassification
from longstrand.runtime import generator, machine
from longstrand.tokenization.kmer import make_kmer

RESULTS = Path(__file__).parent / "results" / "explain.json"
BATCH_TOKENS, STEPS, SIZE = 8192, 50, "mini"


def model_of(size: str) -> SequenceClassification:
    """Make an untrained 6-mer classifier of two classes."""
    torch.manual_seed(0)
    tokenizer = make_kmer(6)
    special = sorted(tokenizer.special_ids)
    head = {"kind": "sequence", "problem": "single_label", "num_outputs": 2, "special_token_ids": special}
    model = SequenceClassification(preset(size, vocab_size=tokenizer.vocab_size, heads={"main": head})).eval()
    model.tokenizer = tokenizer
    return model


def texts_of(num: int, num_bases: int) -> list[str]:
    random = generator(0, num_bases, "perf explain")
    return ["".join(row) for row in np.array(list("ACGT"))[random.integers(0, 4, (num, num_bases))]]


def captum(model: SequenceClassification, texts: list[str]) -> np.ndarray:
    """Attribute all sequences in one call with an internal batch of our size."""
    target = target_of(model, 1)
    encodings = [target.read(text) for text in texts]
    ids = torch.tensor(np.stack([one.input_ids for one in encodings]), dtype=torch.long)
    starts = np.stack([baseline_ids("mask", target, one) for one in encodings])
    layer = LayerIntegratedGradients(
        lambda rows: model(input_ids=rows).logits, model.encoder.embeddings.word_embeddings
    )
    found = layer.attribute(
        ids, torch.tensor(starts, dtype=torch.long), target=1, n_steps=STEPS,
        internal_batch_size=max(len(texts), BATCH_TOKENS // ids.shape[1]),
    )  # fmt: skip
    return found.sum(-1).detach().numpy()


def timed(work: Callable[[], object], repeats: int = 1) -> tuple[float, object]:
    """Give the shortest time of some runs, in seconds, and the last result."""
    times, result = [], None
    for _ in range(repeats):
        started = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - started)
    return min(times), result


def gradients(num: int) -> dict[str, object]:
    model, texts = model_of(SIZE), texts_of(num, 500)
    chunk = BATCH_TOKENS // 90

    def theirs() -> object:
        return np.concatenate([captum(model, texts[i : i + chunk]) for i in range(0, len(texts), chunk)])

    def ours(**options: int) -> object:
        return attribute(model, texts, output=1, baseline="mask", batch_tokens=BATCH_TOKENS, **options)

    attribute(model, texts[:2], output=1)
    seconds, values = timed(theirs)
    same, maps = timed(lambda: ours(steps=STEPS, most_steps=STEPS))
    few, short = timed(ours)
    right = [one.values.sum() + one.special for one in maps]  # type: ignore[attr-defined]
    assert np.allclose(right, values.sum(1), atol=1e-3)
    ends = np.array([one.output - one.baseline for one in maps])  # captum's own delta is wrong here: pooling reads ids
    gaps = np.abs(values.sum(1) - ends) / np.abs(ends)
    return {
        "sequences": num, "captum_seconds": seconds, "captum_largest_gap": float(gaps.max()),
        "same_steps_seconds": same, "same_steps_largest_gap": max(one.relative_gap for one in maps),  # type: ignore[attr-defined]
        "same_steps_times_faster": seconds / same,
        "default_seconds": few, "default_largest_gap": max(one.relative_gap for one in short),  # type: ignore[attr-defined]
        "default_steps": float(np.mean([one.steps for one in short])), "default_times_faster": seconds / few,  # type: ignore[attr-defined]
    }  # fmt: skip


def changes(num: int) -> dict[str, object]:
    model, texts = model_of(SIZE), texts_of(num, 200)
    variants = [
        [text[:p] + letter + text[p + 1 :] for p in range(len(text)) for letter in "ACGT" if letter != text[p]]
        for text in texts
    ]
    some = variants[0][:100]
    loop, _ = timed(lambda: [ls.predict(model, [text]) for text in some], 1)
    listed, _ = timed(lambda: [ls.predict(model, each) for each in variants], 1)
    ours, _ = timed(lambda: attribute(model, texts, method="ism", output=1, batch_tokens=BATCH_TOKENS), 1)
    whole = loop / len(some) * sum(map(len, variants))
    return {"sequences": num, "loop_seconds": whole, "one_call_seconds": listed, "ours_seconds": ours,
            "times_faster_than_loop": whole / ours, "times_faster_than_one_call": listed / ours}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--num", type=int, default=40, help="sequences of 500 bases (a quarter of them for mutagenesis)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = {"machine": machine(), "integrated_gradients": gradients(arguments.num),
              "mutagenesis": changes(max(1, arguments.num // 4))}  # fmt: skip
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
