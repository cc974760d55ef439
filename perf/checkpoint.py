"""Save and load a sharded checkpoint of 482 M weights by two processes, against the bare disk.

Run ``python perf/checkpoint.py`` on an idle machine with 24 GB; the result goes to ``perf/results/checkpoint.json``.
The ordinary training does one step with ``training.parallel=fsdp``, is stopped and saves weights and AdamW's state; a
second run checks the files and loads them (their pages are dropped from memory first). accelerate shares weights out
on GPUs alone: as in the tests, it is made to take two gloo processes for GPUs. The disk is measured with the same
number of bytes, written with fsync and read by two processes, three times after it: the median counts.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from longstrand.config import build
from longstrand.runtime import gather, provenance, rank
from longstrand.training import pretrain as pretraining
from longstrand.training import trainer as training
from longstrand.training.settings import PretrainConfig

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.training.engine_jobs import as_if_on_gpus

SIZES = {
    "large": {"hidden_size": 1280, "num_hidden_layers": 24, "num_attention_heads": 20, "intermediate_size": 5120},
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024},
}
BLOCK = 1 << 24
MUST = 1.2
SECONDS: dict[str, float] = defaultdict(float)


class Loaded(Exception):
    """The checkpoint has been loaded; what would follow is not measured."""


@contextmanager
def clock(name: str) -> Iterator[None]:
    """Add up the time until all processes are through."""
    gather(0)
    start = time.perf_counter()
    yield
    gather(0)
    SECONDS[name] += time.perf_counter() - start


class Timed(training.LongstrandTrainer):
    """Stops after a step; times saving and loading."""

    def training_step(self, *args: Any) -> torch.Tensor:
        self.stopped_by = "SIGUSR1"
        return super().training_step(*args)

    def _save_checkpoint(self, *args: Any) -> None:
        with clock("save"):
            super()._save_checkpoint(*args)

    def _go_back(self) -> Path | None:
        start = time.perf_counter()
        found = super()._go_back()
        SECONDS["check_before_loading"] = time.perf_counter() - start
        return found

    def _load_from_checkpoint(self, *args: Any, **options: Any) -> None:
        with clock("load_weights"):
            super()._load_from_checkpoint(*args, **options)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with clock("load_optimizer"):
            super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            raise Loaded


def work(folder: Path, size: str) -> dict[str, float]:
    """Save, then load, as one of the processes."""
    torch.set_num_threads(1)
    pretraining.LongstrandTrainer = Timed  # type: ignore[misc]
    manifest = training.write_manifest

    def timed_manifest(*values: Any) -> None:
        start = time.perf_counter()
        manifest(*values)
        SECONDS["manifest"] = time.perf_counter() - start

    training.write_manifest = timed_manifest
    values = {
        "output": str(folder / "run"),
        "data": {"genomes": [str(folder / "toy.fa")], "hold_out": {"contigs": ["held"]}},
        "tokenizer": {"kind": "kmer", "k": 6},
        "model": {"preset": "tiny", "settings": SIZES[size]},
        "training": {"steps": 2, "batch_size": 2, "warmup_steps": 1, "max_tokens": 32, "num_workers": 0, "threads": 1,
                     "device": "cpu", "references": False, "parallel": "fsdp"},
    }  # fmt: skip
    config = build(PretrainConfig, values)
    for _ in range(2):
        try:
            with as_if_on_gpus(True):
                pretraining.pretrain(config)
        except Loaded:
            break
        if rank() == 0:
            drop_pages(folder / "run")
        gather(0)
    return dict(SECONDS)


def drop_pages(folder: Path) -> None:
    """Ask the kernel to forget the pages of all files, which are on the disk already."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_file(path: Path, num_bytes: int) -> None:
    """Write random bytes, flushed to the disk."""
    block = np.random.default_rng(0).bytes(BLOCK)
    with open(path, "wb") as file:
        for start in range(0, num_bytes, BLOCK):
            file.write(block[: num_bytes - start])
        os.fsync(file.fileno())


def read_file(path: Path, num_bytes: int) -> None:
    """Read a file from its start to its end."""
    with open(path, "rb") as file:
        while file.read(BLOCK):
            pass


def bare_disk(folder: Path, num_bytes: int) -> dict[str, float]:
    """Time two processes that write and read half of the bytes each."""
    folder.mkdir()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(abs, range(4))
        taken = {}
        does: dict[str, Callable[[Path, int], None]] = {"write": write_file, "read": read_file}
        for name, do in does.items():
            drop_pages(folder)
            start = time.perf_counter()
            pool.starmap(do, [(folder / str(number), num_bytes // 2) for number in range(2)], chunksize=1)
            taken[name] = time.perf_counter() - start
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return taken


def main() -> None:
    size = (sys.argv[1:] or ["large"])[0]
    with tempfile.TemporaryDirectory() as name:
        folder, letters = Path(name), np.frombuffer(b"ACGT", np.uint8)
        text = letters[np.random.default_rng(0).integers(0, 4, 200_000)].tobytes().decode()
        (folder / "toy.fa").write_text(f">a\n{text[:100_000]}\n>held\n{text[100_000:]}\n")
        config = LaunchConfig(
            1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0, start_method="spawn"
        )
        seconds = elastic_launch(config, work)(folder, size)[0]
        checkpoint = next((folder / "run").glob("checkpoint-*"))
        files = {str(f.relative_to(checkpoint)): f.stat().st_size for f in checkpoint.rglob("*") if f.is_file()}
        total = sum(files.values())
        disk = [bare_disk(folder / "disk", total) for _ in range(3)]
    usual = {what: statistics.median(taken[what] for taken in disk) for what in ("write", "read")}
    load = seconds["load_weights"] + seconds["load_optimizer"]
    result = {
        "what": "sharded checkpoint of two gloo processes (weights and AdamW's state, fp32), as the Trainer makes it",
        "settings": SIZES[size], "checkpoint_bytes": total,
        "largest_files": dict(sorted(files.items(), key=lambda item: -item[1])[:4]),
        "seconds": seconds, "bare_disk_seconds": disk,
        "save_to_bare_disk": seconds["save"] / usual["write"],
        "save_without_manifest_to_bare_disk": (seconds["save"] - seconds["manifest"]) / usual["write"],
        "load_to_bare_disk": load / usual["read"],
        "check_and_load_to_bare_disk": (load + seconds["check_before_loading"]) / usual["read"],
        "must": MUST, "provenance": provenance(["python", "perf/checkpoint.py", *sys.argv[1:]]),
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if size == "large":
        (Path(__file__).parent / "results" / "checkpoint.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
