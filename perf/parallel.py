"""Two processes against one: tokens a second and core of pre-training 110 M weights, by the ordinary command.

Run ``python perf/parallel.py`` on an idle machine with two cores; the result goes to
``perf/results/parallel.json``. Each process has one thread and as many rows a step as the one process has (weak
scaling); gradients are joined once a step by gloo. Seconds of the processor are kept, too: on a
busy machine the clock says nothing.
"""

from __future__ import annotations

import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from longstrand.runtime import provenance

ROWS, TOKENS, STEPS, PRESET = 2, 512, 3, os.environ.get("PARALLEL_PRESET", "base")
MUST, STRETCH = 0.9, 0.97


def run(folder: Path, processes: int) -> dict[str, Any]:
    """Train some steps; the first is not counted."""
    words = [
        "-m", "longstrand", "pretrain", "--genome", str(folder / "toy.fa"), "--preset", PRESET, "--device", "cpu",
        "--steps", str(STEPS), "--output", str(folder / f"run{processes}"), "tokenizer.kind=kmer", "tokenizer.k=6",
        f"training.max_tokens={TOKENS}", f"training.batch_size={ROWS * processes}", "training.micro_batch_size=2",
        "model.settings.num_hidden_layers=15", "training.log_every=1", "training.eval_every=100",
        "training.eval_windows=1", "training.save_every=100", "training.references=false",
        "training.threads=1", "training.num_workers=0", "training.warmup_steps=1", "data.hold_out.contigs=[b]",
    ]  # fmt: skip
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *launch, *words], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    lines = (folder / f"run{processes}" / "metrics.jsonl").read_text().splitlines()
    rates = [row["tokens_per_second"] for row in map(json.loads, lines) if "tokens_per_second" in row]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"tokens_per_second_and_core": statistics.median(rates[1:]) / processes, "rates": rates,
            "processor_seconds_of_the_run": cpu, "seconds_of_the_run": wall}  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, letters = Path(name), random.Random(0)
        records = ((contig, "".join(letters.choices("ACGT", k=200_000))) for contig in "ab")
        (folder / "toy.fa").write_text("".join(f">{contig}\n{text}\n" for contig, text in records))
        one, two = run(folder, 1), run(folder, 2)
    result = {
        "what": f"110 M (15 layers of 768), {ROWS} rows of {TOKENS} tokens a process and step, one thread, fp32, gloo",
        "one_process": one,
        "two_processes": two,
        "ratio_a_core": two["tokens_per_second_and_core"] / one["tokens_per_second_and_core"],
        "targets": {"must": MUST, "stretch": STRETCH},
        "load_of_the_machine": round(os.getloadavg()[0], 1),
        "provenance": provenance(["python", "perf/parallel.py"]),
    }
    (Path(__file__).parent / "results" / "parallel.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
