"""Everything that is measured on a GPU, in one command, against its peer in the same run; bf16.

    python perf/gpu.py [--part attention|training|inference|all] [--rounds 10]
    python perf/gpu.py --smoke

``attention``: one block-sparse layer (768 wide, blocks of 64), forward + backward and peak memory at 4k to 32k tokens,
against transformers' `BigBirdLayer`. ``training``: a masked-LM step of a 110 M model, 512 tokens, compiled, against
transformers' BERT with SDPA, compiled; with the share of the matrix peak that a large product reaches in the same run.
``inference``: tokens per second at 512 tokens against transformers' ModernBERT with the best attention that is
installed, compiled. Writes perf/results/gpu.json. ``--smoke`` runs the same code with tiny sizes on a CPU, to see that
it works; its times mean nothing and are not written.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertModel

sys.path.insert(0, str(Path(__file__).parent))

import attention as layers

from longstrand.models.config import LongstrandConfig
from longstrand.models.pretrained import LongstrandForMaskedLM, LongstrandModel
from longstrand.runtime import machine, provenance, write_json


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    device: str
    lengths: tuple[int, ...]
    num_layers: int
    vocab_size: int
    tokens: int
    batch: int
    inference_batch: int
    peak: int
    compiles: bool


FULL = Sizes("cuda", (4096, 8192, 16384, 32768), 12, 32_000, 512, 64, 256, 8192, True)
SMOKE = Sizes("cpu", (1024,), 1, 100, 32, 2, 2, 256, False)


def synchronise(sizes: Sizes) -> None:
    """Wait for the device."""
    if sizes.device == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], rounds: int, sizes: Sizes) -> float:
    """Give the median seconds of a call, after warming up (compilation included)."""
    for _ in range(3 if sizes.device == "cuda" else 1):
        call()
    found = []
    for _ in range(rounds):
        synchronise(sizes)
        start = time.perf_counter()
        call()
        synchronise(sizes)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def peak_megabytes(call: Callable[[], object], sizes: Sizes) -> float | None:
    """Give what one call adds to the memory in use, at its peak."""
    if sizes.device != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def matrix_peak(sizes: Sizes, rounds: int) -> float:
    """Measure the operations per second of one large bf16 product."""
    size = sizes.peak
    left, right = (torch.randn(size, size, device=sizes.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / seconds(lambda: left @ right, rounds, sizes)


def measure_attention(sizes: Sizes, rounds: int) -> dict:
    """Compare layers at each length; a peer that runs out of memory is reported so."""
    rows: dict = {}
    for length in sizes.lengths:
        config, ours = layers.our_layer(length)
        peer = layers.peer_layer(length)
        layers.copy_weights(peer, ours)
        hidden = torch.randn(1, length, layers.SIZE, device=sizes.device, dtype=torch.bfloat16)
        peer, ours = (one.to(sizes.device, torch.bfloat16).train() for one in (peer, ours))
        calls = {
            "transformers": partial(layers.forward_backward, partial(layers.call_peer, peer), hidden),
            "longstrand": partial(layers.forward_backward, partial(layers.call_ours, config, ours), hidden),
        }
        row: dict = {}
        for name, call in calls.items():
            try:
                row[name] = {"seconds": seconds(call, rounds, sizes), "megabytes": peak_megabytes(call, sizes)}
            except torch.OutOfMemoryError:
                row[name] = None
        if all(row.values()):
            row["speed_ratio"] = row["transformers"]["seconds"] / row["longstrand"]["seconds"]
            if sizes.device == "cuda":
                row["memory_ratio"] = row["longstrand"]["megabytes"] / row["transformers"]["megabytes"]
        rows[length] = row
        del peer, ours, calls
        gc.collect()
    return {"rows": rows, "target": {"speed_ratio": [5, 10], "memory_ratio": [1 / 3, None]}}


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor], device: str) -> None:
    """Do forward, backward and update under automatic mixed precision."""
    with torch.autocast(device, torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def measure_training(sizes: Sizes, rounds: int) -> dict:
    """Compare masked-LM steps, and relate ours to the matrix peak."""
    shape = {"vocab_size": sizes.vocab_size, "num_hidden_layers": sizes.num_layers, "pad_token_id": 3}
    config = LongstrandConfig(norm="post", **shape)
    peer = BertForMaskedLM._from_config(BertConfig(**shape), attn_implementation="sdpa")
    ids = torch.randint(5, sizes.vocab_size, (sizes.batch, sizes.tokens))
    labels = ids.masked_fill(torch.rand(ids.shape) > 0.15, -100)
    batch = {"input_ids": ids.to(sizes.device), "labels": labels.to(sizes.device)}
    found: dict[str, float] = {}
    for name, model in {"transformers": peer, "longstrand": LongstrandForMaskedLM(config)}.items():
        model = model.to(sizes.device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        compiled = torch.compile(model) if sizes.compiles else model
        step = partial(training_step, compiled, optimizer, batch, sizes.device)
        found[name] = seconds(step, rounds, sizes)
        parameters = sum(weight.numel() for weight in model.parameters())
        tables = model.get_input_embeddings().weight.numel()
        del model, optimizer, compiled
        gc.collect()
    tokens = sizes.batch * sizes.tokens
    # 6 operations a weight and token; the word table counts where it decodes: at the labelled 15 % of places.
    weights = parameters - tables + 0.15 * tables
    scores = 12 * sizes.num_layers * config.hidden_size * sizes.tokens
    work, peak = tokens * (6 * weights + scores), matrix_peak(sizes, rounds)
    return {
        "tokens_per_second": {name: tokens / one for name, one in found.items()},
        "ratio": found["transformers"] / found["longstrand"],
        "matrix_peak_teraflops": peak / 1e12,
        "share_of_peak": work / found["longstrand"] / peak,
        "target": {"ratio": 1.3, "share_of_peak": [0.4, 0.5]},
    }


def measure_inference(sizes: Sizes, rounds: int) -> dict:
    """Compare encoders of 12 layers of 768 (ModernBERT has 22 narrower ones, 149 M with its vocabulary)."""
    best = "flash_attention_2" if importlib.util.find_spec("flash_attn") and sizes.device == "cuda" else "sdpa"
    shape = {"vocab_size": sizes.vocab_size, "pad_token_id": 3}
    small = {} if sizes.device == "cuda" else {"num_hidden_layers": 1}
    special = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    theirs = ModernBertConfig(**shape, **special, **small)
    peer = ModernBertModel._from_config(theirs, attn_implementation=best)
    ours = LongstrandModel(LongstrandConfig(num_hidden_layers=sizes.num_layers, **shape))
    ids = torch.randint(5, sizes.vocab_size, (sizes.inference_batch, sizes.tokens), device=sizes.device)
    rates: dict[str, float] = {}
    for name, model in {"transformers ModernBERT": peer, "longstrand": ours}.items():
        model = model.to(sizes.device, torch.bfloat16).eval()
        compiled = torch.compile(model) if sizes.compiles else model

        def call(compiled: nn.Module = compiled) -> None:
            with torch.inference_mode():
                compiled(input_ids=ids)

        rates[name] = ids.numel() / seconds(call, rounds, sizes)
    return {"tokens_per_second": rates, "attention_of_peer": best, "target": {"longstrand": 2e6}}


PARTS = {"attention": measure_attention, "training": measure_training, "inference": measure_inference}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on a CPU: does the script work?")
    options = parser.parse_args()
    if not options.smoke and not torch.cuda.is_available():
        sys.exit("perf/gpu.py needs a CUDA GPU and found none; --smoke checks the script on a CPU with tiny sizes.")
    sizes, rounds = (SMOKE, 1) if options.smoke else (FULL, options.rounds)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    found = {part: PARTS[part](sizes, rounds) for part in (PARTS if options.part == "all" else [options.part])}
    print(found)
    if not options.smoke:
        about = {"machine": machine(), "versions": provenance([])["versions"]}
        write_json(Path(__file__).parent / "results" / "gpu.json", about | found)


if __name__ == "__main__":
    main()
