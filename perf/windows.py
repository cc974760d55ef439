"""Time the window data set: read, strand, tokenize, mask; 512 tokens from a plain indexed FASTA, one worker.

Run ``python perf/windows.py`` on an idle machine; the result goes to ``perf/results/windows.json``. With the folder
named by LONGSTRAND_DATA the genome is yeast and the tokenizer GENA-LM's (32,000 tokens); without it, random DNA and a
small tokenizer trained on it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from longstrand.data.collate import Collator
from longstrand.data.examples import MaskedExamples, WindowTokenizer, measure_budget
from longstrand.data.masking import MaskingConfig, mask_tokens
from longstrand.data.windows import TrainingWindows
from longstrand.genome.fasta import Genome
from longstrand.runtime import data_root, generator, provenance
from longstrand.tokenization.base import Tokenizer
from longstrand.tokenization.hub import load_tokenizer
from longstrand.tokenization.train import train_bpe

MAX_TOKENS, BATCH = 512, 32
MUST, STRETCH = 1500.0, 3000.0
ROUNDS = 7


def inputs(folder: Path) -> tuple[Genome, Tokenizer, str]:
    """Give genome, tokenizer and what they are."""
    data = data_root()
    if data is not None:
        tokenizer = load_tokenizer(data / "data/tokenizers/gena_t2t_1000h_multi_32k")
        return Genome(data / "data/genomes/scer_R64-1-1.fa.gz"), tokenizer, "yeast, GENA-LM t2t 32k"
    letters = np.frombuffer(b"ACGT", dtype=np.uint8)
    text = letters[np.random.default_rng(1).integers(0, 4, size=4_000_000)].tobytes().decode()
    (folder / "random.fa").write_text(f">random\n{text}\n")
    tokenizer = train_bpe([text[:1_000_000]], vocab_size=4096)
    return Genome(folder / "random.fa"), tokenizer, "random DNA, own BPE 4096"


def rate(work: Callable[[int], object], count: int) -> dict[str, float]:
    """Give items per second over rounds of different items; per second of this process's own CPU time beside it.

    The two agree on an idle machine.
    """
    work(0)
    rates, own = [], []
    for number in range(ROUNDS):
        start, start_own = time.perf_counter(), time.process_time()
        for index in range(number * count, (number + 1) * count):
            work(index)
        rates.append(count / (time.perf_counter() - start))
        own.append(count / (time.process_time() - start_own))
    spread = {"median": statistics.median(rates), "best": max(rates), "worst": min(rates)}
    return {name: round(value) for name, value in (spread | {"median_per_cpu_second": statistics.median(own)}).items()}


def loader_rate(examples: MaskedExamples, collate: Collator, *, count: int) -> float:
    """Give windows per second that arrive as batches from one worker process, start-up not counted."""
    import torch

    loader = torch.utils.data.DataLoader(
        examples, batch_size=BATCH, num_workers=1, collate_fn=collate, prefetch_factor=4
    )
    batches = iter(loader)
    for _ in range(8):
        next(batches)
    start = time.perf_counter()
    for _ in range(count // BATCH):
        next(batches)
    return round(count // BATCH * BATCH / (time.perf_counter() - start))


def measure(folder: Path) -> dict[str, object]:
    genome, tokenizer, what = inputs(folder)
    budget = measure_budget([genome], tokenizer, max_tokens=MAX_TOKENS)
    settings = {"num_bases": budget.num_bases, "num_samples": 1_000_000, "seed": 1, "alphabet": tokenizer.alphabet}
    windows = TrainingWindows([genome], **settings)
    epoch = TrainingWindows([genome], order="epoch", stride=budget.stride, **settings)
    encoder = WindowTokenizer(tokenizer, max_tokens=MAX_TOKENS)
    examples = MaskedExamples(windows, tokenizer, max_tokens=MAX_TOKENS, seed=1)
    spans = MaskedExamples(windows, tokenizer, MaskingConfig(kind="span"), max_tokens=MAX_TOKENS, seed=1)
    kept = [windows[index] for index in range(64)]
    tokens = [encoder.encode(window)[0] for window in kept]
    settings_of_mask = {"config": MaskingConfig(), "mask_token_id": tokenizer.mask_token_id or 0}

    def mask(index: int) -> object:
        ids = tokens[index % 64]
        draw = generator(1, index, "mask")
        return mask_tokens(ids, ids > 5, random_token_ids=tokenizer.dna_token_ids, generator=draw, **settings_of_mask)

    return {
        "input": what,
        "bases_per_window": budget.num_bases,
        "bases_per_token": round(budget.bases_per_token, 3),
        "share_full": round(float(np.mean([len(ids) == MAX_TOKENS for ids in tokens])), 3),
        "examples (read, strand, tokenize, mask), random order": rate(examples.__getitem__, 1000),
        "examples, epoch order": rate(
            MaskedExamples(epoch, tokenizer, max_tokens=MAX_TOKENS, seed=1).__getitem__, 1000
        ),
        "examples, span masking": rate(spans.__getitem__, 1000),
        "windows alone (read, strand)": rate(windows.__getitem__, 3000),
        "tokenize alone": rate(lambda index: encoder.encode(kept[index % 64]), 1000),
        "mask alone": rate(mask, 3000),
        "batches of 32 from one worker": loader_rate(examples, Collator(pad_token_id=3), count=6400),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder))
    windows_per_second = measured["examples (read, strand, tokenize, mask), random order"]["median"]  # type: ignore[index]
    result = {
        "what": f"windows per second, {MAX_TOKENS} tokens, plain FASTA, one thread",
        "windows_per_second": windows_per_second,
        "load_of_the_machine": round(os.getloadavg()[0], 1),
        "measured": measured,
        "targets": {"must": MUST, "stretch": STRETCH},
        "ratio_to_must": round(windows_per_second / MUST, 3),
        "ratio_to_stretch": round(windows_per_second / STRETCH, 3),
        "provenance": provenance(["python", "perf/windows.py"]),
    }
    target = Path(__file__).parent / "results" / "windows.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
