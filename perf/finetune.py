"""Fine-tuning throughput on mixed lengths: ours against a stock Trainer script that pads to the maximum.

    python perf/finetune.py [--rows 192] [--rounds 3] [--bf16]

Same model (transformers' BERT architecture, loaded by us), same weights, rows, batch size, optimizer and precision; a
stock script tokenizes with ``padding="max_length"``, as most fine-tuning scripts of the field do. The maximum is here
the longest row; a script that pads to what the model can read (512) does more still. Lengths are drawn as those of
regulatory elements are (log-normal around 300 bases, cut at 1,000). Both are tokenized beforehand, warmed up, and timed
in turns. Takes about two minutes on two idle cores; writes perf/results/finetune.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from longstrand.data.labelled import LabelledTable
from longstrand.data.labelled_files import RawTable
from longstrand.data.targets import Task
from longstrand.models.checkpoint import load_model
from longstrand.runtime import machine, provenance, write_json
from longstrand.tokenization.kmer import make_kmer
from longstrand.training.examples import Collator, TrainingExamples, tokenize

MUST, STRETCH = 1.3, 2.0
MAX_BASES, BATCH = 1000, 16


def make_table(num_rows: int) -> LabelledTable:
    """Draw random sequences of mixed lengths with random classes."""
    random = np.random.default_rng(0)
    lengths = np.clip(np.exp(random.normal(np.log(300), 0.5, num_rows)), 60, MAX_BASES).astype(int)
    texts = ["".join(random.choice(list("ACGT"), length)) for length in lengths]
    raw = RawTable("simulated", list(range(num_rows)), texts, {})
    return LabelledTable(raw, Task("single_label", ("0", "1"), ("label",)), random.integers(0, 2, num_rows))


def make_models(tokenizer: Any, folder: str, *, hidden: int, layers: int) -> dict[str, torch.nn.Module]:
    """Make stock BERT and ours with the same weights."""
    vocab_size, pad = tokenizer.vocab_size, tokenizer.pad_token_id
    shape = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 4}
    shape |= {"intermediate_size": 4 * hidden}
    stock = BertForSequenceClassification(
        BertConfig(vocab_size=vocab_size, pad_token_id=pad, max_position_embeddings=512, **shape)
    )
    stock.save_pretrained(folder)
    head = {"problem": "single_label", "num_outputs": 2, "pooling": "cls"}
    return {"stock": stock, "longstrand": load_model(folder, "sequence", new_head=head)}


def padded_rows(table: LabelledTable, tokenizer: Any, length: int) -> list[dict[str, Any]]:
    """Tokenize as ``padding="max_length"`` does."""
    rows = []
    for text, target in zip(table.sequences, table.targets):
        ids = tokenizer.encode(text).input_ids[:length].tolist()
        rest = length - len(ids)
        rows.append(
            {
                "input_ids": ids + [tokenizer.pad_token_id] * rest,
                "attention_mask": [1] * len(ids) + [0] * rest,
                "labels": int(target),
            }
        )
    return rows


def train(model: torch.nn.Module, rows: Any, folder: str, *, bf16: bool, collator: Any = None) -> dict[str, float]:
    """Train one epoch by the Trainer and give wall and processor seconds."""
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        use_cpu=not torch.cuda.is_available(),
        bf16=bf16,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        remove_unused_columns=False,
        train_sampling_strategy="sequential" if collator else "random",
    )
    trainer = _Quiet(model=model, args=arguments, train_dataset=rows, data_collator=collator)
    start, work = time.perf_counter(), time.process_time()
    trainer.train()
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - work}


class _Quiet(Trainer):
    """The stock Trainer; leaves out the count of bases that our batches carry."""

    def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
        inputs.pop("num_bases", None)
        return super().training_step(model, inputs, *rest)

    def log(self, *unused: Any, **also_unused: Any) -> None:
        """Say nothing."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=192, help="a multiple of the batch, so that no arm leaves one out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    if options.rows % BATCH:
        parser.error(f"--rows must be a multiple of {BATCH}")
    tokenizer = make_kmer(3, overlapping=False)
    table = make_table(options.rows)
    tokenized = tokenize(table, tokenizer, 512)
    longest = max(len(encoding) for encoding in tokenized.encodings)
    with tempfile.TemporaryDirectory() as folder:
        models = make_models(tokenizer, folder, hidden=options.hidden, layers=options.layers)
        ours = TrainingExamples(table, tokenized, tokenizer, batch_size=BATCH, epochs=1, seed=0)
        arms = {
            "stock": (padded_rows(table, tokenizer, longest), None),
            "longstrand": (ours, Collator(tokenizer.pad_token_id, per_token=False)),
        }
        timed: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
        for name, (rows, collator) in arms.items():
            warm = torch.utils.data.Subset(rows, range(2 * BATCH))
            train(models[name], warm, folder, bf16=options.bf16, collator=collator)
        for round_number in range(options.rounds):
            for name in list(arms) if round_number % 2 else list(arms)[::-1]:
                rows, collator = arms[name]
                timed[name].append(train(models[name], rows, folder, bf16=options.bf16, collator=collator))
    seconds = {name: statistics.median(one["seconds"] for one in runs) for name, runs in timed.items()}
    work = {name: statistics.median(one["cpu_seconds"] for one in runs) for name, runs in timed.items()}
    num_tokens = sum(len(encoding) for encoding in tokenized.encodings)
    ratio = seconds["stock"] / seconds["longstrand"]
    report = {
        "what": f"{options.layers} x {options.hidden}, one epoch of {options.rows} rows, "
        f"{longest} tokens at most, mean {num_tokens / options.rows:.0f}",
        "peer": "stock Trainer, BertForSequenceClassification, padding to the maximum; same weights and precision",
        "precision": "bf16" if options.bf16 else "fp32",
        "real_tokens_per_second": {name: num_tokens / value for name, value in seconds.items()},
        "ratio": ratio,
        "ratio_of_cpu_seconds": work["stock"] / work["longstrand"],
        "note": "On a busy machine read ratio_of_cpu_seconds. Both run through the stock Trainer loop.",
        "target": {"must": MUST, "stretch": STRETCH},
        "met": ratio >= MUST,
        "runs": timed,
        "machine": machine(),
        "versions": provenance([])["versions"],
    }
    write_json(Path(__file__).parent / "results" / "finetune.json", report)
    print(f"{report['what']}: ratio {ratio:.2f}, of processor time {report['ratio_of_cpu_seconds']:.2f} (must {MUST})")


if __name__ == "__main__":
    main()
