"""Inference of a DNABERT-2 shaped model on sequences of mixed lengths, on a CPU: ours against stock padding.

    python perf/inference.py [--layers 12] [--sequences 64] [--batch 16] [--rounds 2] [--threads N]

Same weights, same tokens, same run, in turn. 12 layers of 768, ALiBi, gated MLP (117 M parameters) with random weights;
lengths are uniform between 16 and 512 tokens. Three ways:

``stock``: batches in the order of the file, padded to their longest sequence, as a tokenizer with ``padding=True`` and
a transformers model do it; the encoder sees the mask, ALiBi is a table of (heads, L, L), products are PyTorch's own.
``padded``: the same batches, our encoder with all that it does for padded batches.
``predict``: what `longstrand.inference.predict.predict` does by default: sorted by length, packed, put back in order.

Results are compared first. Writes perf/results/inference.json. The ratio stock / predict is the target.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import longstrand.models.encoder as encoder_module
import longstrand.models.linear as linear_module
from longstrand.inference.predict import predict
from longstrand.models.attention.mask import prepare
from longstrand.models.config import LongstrandConfig
from longstrand.models.networks import Encoder
from longstrand.runtime import machine, provenance, write_json
from longstrand.tokenization.kmer import make_kmer

MUST, STRETCH = 1.5, 2.0


def make_model(layers: int, vocab_size: int, pad_token_id: int) -> Encoder:
    """Make an encoder shaped as DNABERT-2, random weights."""
    biases = {"attention": True, "mlp_up": False, "mlp_down": True}
    config = LongstrandConfig(
        vocab_size=vocab_size, num_hidden_layers=layers, positions="alibi", gated_mlp=True, norm="post", biases=biases,
        norm_eps=1e-12, pad_token_id=pad_token_id, hidden_dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    return Encoder(config).eval()


@contextmanager
def stock_style() -> Iterator[None]:
    """Switch off what our encoder does for padded batches: one masked call under a table, PyTorch's products."""

    def dense(pattern: object, inputs: object, **options: object) -> object:
        return prepare(pattern, inputs, path="dense")  # type: ignore[arg-type]

    with (
        mock.patch.object(encoder_module, "prepare", dense),
        mock.patch.object(linear_module, "_suits", lambda *_: False),
        mock.patch.object(encoder_module, "_MLP_TOKENS", 1 << 40),
    ):
        yield


def padded(model: Encoder, encoded: list[np.ndarray], pad_token_id: int, batch: int) -> list[np.ndarray]:
    """Embed by mean over real tokens, in batches in the given order, padded to the longest."""
    found = []
    for start in range(0, len(encoded), batch):
        some = [torch.from_numpy(ids.astype(np.int64)) for ids in encoded[start : start + batch]]
        ids = torch.nn.utils.rnn.pad_sequence(some, batch_first=True, padding_value=pad_token_id)
        lengths = torch.tensor([len(one) for one in some])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        with torch.inference_mode():
            hidden: Tensor = model(ids, mask).last_hidden_state
        mask[:, 0] = 0  # the special tokens do not count
        mask[torch.arange(len(some)), lengths - 1] = 0
        found += list(((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy())
    return found


def seconds(call: Callable[[], object]) -> float:
    """Measure the wall, or with one thread the processor, whose time other jobs cannot take away."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    call()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = make_kmer(1)
    pad = tokenizer.pad_token_id or 0
    model, letters = make_model(options.layers, tokenizer.vocab_size, pad), random.Random(0)
    texts = ["".join(letters.choices("ACGT", k=letters.randint(14, 510))) for _ in range(options.sequences)]
    encoded = [tokenizer.encode(text).input_ids for text in texts]

    def by_batches(style: Callable[[], object]) -> list[np.ndarray]:
        with style():  # type: ignore[attr-defined]
            return padded(model, encoded, pad, options.batch)

    def by_predict() -> list[np.ndarray]:
        return [item.values for item in predict(model, texts, tokenizer=tokenizer, output="embeddings")]

    ways = {"stock": lambda: by_batches(stock_style), "padded": lambda: by_batches(nullcontext), "predict": by_predict}
    results = {name: np.stack(way()) for name, way in ways.items()}
    rounds = [{name: seconds(way) for name, way in ways.items()} for _ in range(options.rounds)]
    best = {name: min(one[name] for one in rounds) for name in ways}
    tokens = sum(map(len, encoded))
    report = {
        "what": f"embedding of {options.sequences} sequences of 16 to 512 tokens, batches of {options.batch}, "
        f"{options.layers} layers of 768 with ALiBi and gated MLP (DNABERT-2's shape), random weights, fp32, CPU",
        "machine": machine(),
        "versions": provenance([])["versions"],
        "real_tokens": tokens,
        "best_seconds": best,
        "tokens_per_second": {name: tokens / one for name, one in best.items()},
        "largest_difference": {name: float(np.abs(found - results["stock"]).max()) for name, found in results.items()},
        "ratio": best["stock"] / best["predict"],
        "target": {"must": MUST, "stretch": STRETCH},
    }
    write_json(Path(__file__).parent / "results" / "inference.json", report)
    print({name: report[name] for name in ("best_seconds", "largest_difference", "ratio")})


if __name__ == "__main__":
    main()
