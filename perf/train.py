"""A masked-LM training step of a 110 M model against transformers' BERT with SDPA: same shapes, same run, interleaved.

    python perf/train.py [--precision bf16|fp32|both] [--batch 2] [--rounds 2] [--layers 12] [--dropout 0.1]

A step is forward, backward, fused AdamW. Both models start from the same weights and see the same batches; with
``--dropout 0`` their losses are compared as well. Writes perf/results/train.json. The target is the bf16 ratio.
"""

from __future__ import annotations

import argparse
import gc
import logging
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM

from longstrand.models.checkpoint import load_model
from longstrand.models.precision import cpu_has_bf16
from longstrand.runtime import machine, provenance, seed_everything, write_json

TARGET, STRETCH = 1.2, 1.35
VOCABULARY, LENGTH = 32_000, 512
EMULATED_LENGTH = 128
"""Tokens of a bf16 step on a processor without bf16 units, where one of 512 tokens takes minutes."""


def make_models(layers: int, dropout: float) -> dict[str, torch.nn.Module]:
    """Make stock BERT and ours with the same weights."""
    shape = {"vocab_size": VOCABULARY, "num_hidden_layers": layers, "pad_token_id": 3}
    drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    stock = BertForMaskedLM._from_config(BertConfig(**shape, **drop), attn_implementation="sdpa")
    with tempfile.TemporaryDirectory() as folder:
        stock.save_pretrained(folder)
        ours = load_model(folder, "masked_lm")
    return {"transformers": stock.train(), "longstrand": ours.train()}


def make_batch(batch: int, seed: int, length: int) -> dict[str, torch.Tensor]:
    """Make random tokens, 15 % of them to be predicted."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (batch, length), generator=generator)
    chosen = torch.rand(ids.shape, generator=generator) < 0.15
    return {
        "input_ids": ids.masked_fill(chosen, 4),
        "attention_mask": torch.ones_like(ids),
        "labels": ids.masked_fill(~chosen, -100),
    }


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: dict, bf16: bool) -> dict[str, float]:
    """Take one training step; gives wall seconds, processor seconds and the loss."""
    start, work = time.perf_counter(), time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - work, "loss": loss.item()}


def measure(precision: str, options: argparse.Namespace) -> dict:
    """Time both models, interleaved, after a short warm-up step of each."""
    seed_everything(0)
    bf16, native = precision == "bf16", precision == "fp32" or cpu_has_bf16()
    models = make_models(options.layers, options.dropout)
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True) for name, model in models.items()}
    warm_up = make_batch(1, 0, 32)
    for name, model in models.items():
        step(model, optimizers[name], warm_up, bf16)
    size, length, rounds = (options.batch, LENGTH, options.rounds) if native else (1, EMULATED_LENGTH, 1)
    steps: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    for index in range(rounds):
        for name in list(models) if index % 2 == 0 else list(models)[::-1]:
            steps[name].append(step(models[name], optimizers[name], make_batch(size, index + 1, length), bf16))

    def median(name: str, what: str) -> float:
        return statistics.median(one[what] for one in steps[name])

    result = {
        "parameters": sum(p.numel() for p in models["longstrand"].parameters()),
        "batch": size,
        "length": length,
        "tokens_per_second": {name: size * length / median(name, "seconds") for name in models},
        "ratio": median("transformers", "seconds") / median("longstrand", "seconds"),
        "ratio_of_cpu_seconds": median("transformers", "cpu_seconds") / median("longstrand", "cpu_seconds"),
        "steps": steps,
    }
    del models, optimizers
    gc.collect()
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", choices=["bf16", "fp32", "both"], default="both")
    parser.add_argument("--batch", type=int, default=2, help="sequences of 512 tokens in a step")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--dropout", type=float, default=0.1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    chosen = ["fp32", "bf16"] if options.precision == "both" else [options.precision]
    results = {precision: measure(precision, options) for precision in chosen}
    report = {
        "what": f"masked-LM step, {options.layers} x 768, vocabulary {VOCABULARY}, {LENGTH} tokens",
        "dropout": options.dropout,
        "peer": "transformers BertForMaskedLM, SDPA, same weights, batches, optimizer and run",
        "target": {"must": TARGET, "stretch": STRETCH, "of": "bf16"},
        "cpu_has_bf16": cpu_has_bf16(),
        "note": "Without bf16 units PyTorch emulates bf16 products; our models then compute in float32. "
        "The fp32 ratio has no such effect. On a busy machine read ratio_of_cpu_seconds.",
        "machine": machine(),
        "versions": provenance([])["versions"],
        **results,
    }
    write_json(Path(__file__).parent / "results" / "train.json", report)
    for precision, result in results.items():
        rates = ", ".join(f"{name} {rate:.0f}" for name, rate in result["tokens_per_second"].items())
        print(
            f"{precision}: {rates} tokens/s; ratio {result['ratio']:.2f}, of processor time "
            f"{result['ratio_of_cpu_seconds']:.2f} (must {TARGET}, stretch {STRETCH})"
        )


if __name__ == "__main__":
    main()
