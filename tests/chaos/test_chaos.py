"""Kill -9 at random moments, a full disk, a folder that cannot be written: nothing is lost, one sentence is said.

``LONGSTRAND_CHAOS_MOMENTS`` (default 2) is the number of kills for each command. Only the processes that a test started
are ended.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.window_toys import random_dna, write_fasta
from tests.toys import tiny_checkpoint

pytestmark = pytest.mark.slow
MOMENTS = int(os.environ.get("LONGSTRAND_CHAOS_MOMENTS", "2"))
FULL_AFTER = 600
"""Bytes after which a file of the limited process is full."""


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a genome, a labelled table, a masked LM and a classifier."""
    from longstrand.models.checkpoint import load_model, save_checkpoint

    folder = tmp_path_factory.mktemp("toys")
    write_fasta(folder / "genome.fa", {name: random_dna(6000, seed=seed) for seed, name in enumerate("abc")})
    draw, rows = random.Random(0), ["sequence,label"]
    for number in range(240):
        text = "".join(draw.choice("ACGT") for _ in range(60))
        rows.append(f"{text[:28]}{'GATA' if number % 2 else 'CTTC'}{text[32:]},{number % 2}")
    (folder / "rows.csv").write_text("\n".join(rows) + "\n")
    tiny_checkpoint(folder / "lm", k=3)
    head = {"problem": "single_label", "num_outputs": 2}
    model = load_model(folder / "lm", "sequence", new_head=head)
    save_checkpoint(model, model.require_tokenizer(), folder / "classifier")
    return folder


COMMANDS: dict[str, tuple[str, ...]] = {
    "predict": ("predict", "{toys}/classifier", "{toys}/rows.csv", "-o", "{out}/calls.csv"),
    "embed": ("embed", "{toys}/lm", "{toys}/rows.csv", "-o", "{out}/vectors.parquet"),
    "contigs": (
        "embed", "{toys}/lm", "{toys}/genome.fa", "-o", "{out}/bases.zarr", "--pooling", "bases", "--window", "600",
    ),
    "pretrain": (
        "pretrain", "output={out}/run", "data.genomes=[{toys}/genome.fa]", "tokenizer.kind=kmer", "tokenizer.k=3",
        "model.preset=tiny", "training.steps=12", "training.max_tokens=32", "training.batch_size=4",
        "training.save_every=3", "training.eval_every=6", "training.references=false",
    ),
    "finetune": (
        "finetune", "{toys}/lm", "{toys}/rows.csv", "-o", "{out}/run", "--epochs", "2", "--lr", "1e-3",
        "evaluation.baselines=[]", "training.strand=+",
    ),
    "probe": ("probe", "{toys}/lm", "{toys}/rows.csv", "-o", "{out}/probe"),
}  # fmt: skip
RESULTS = {
    "predict": "calls.csv",
    "embed": "vectors.parquet",
    "contigs": "bases.zarr",
    "pretrain": "run/model/model.safetensors",
    "finetune": "run/model/model.safetensors",
    "probe": "probe/report.json",
}


def start(name: str, toys: Path, out: Path, *, limit: int | None = None) -> subprocess.Popen[str]:
    words = [word.format(toys=toys, out=out) for word in COMMANDS[name]]

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "longstrand", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=full if limit is not None else None,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(name: str, toys: Path, out: Path) -> float:
    """Run a command to its end; give its seconds."""
    begin, process = time.monotonic(), start(name, toys, out)
    _, error = process.communicate()
    assert process.returncode == 0, error
    return time.monotonic() - begin


def result(name: str, out: Path) -> object:
    """Read what must not depend on interruptions."""
    path = out / RESULTS[name]
    if path.is_dir():
        return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    if path.suffix == ".json":
        report = json.loads(path.read_text())
        return {key: value for key, value in report.items() if key in ("metrics", "test", "results")}
    return path.read_bytes()


@pytest.mark.parametrize("name", COMMANDS)
def test_kill_at_random_moments(toys: Path, tmp_path: Path, name: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()
    seconds = finish(name, toys, whole)
    draw = random.Random(name)
    for _ in range(MOMENTS):
        process = start(name, toys, cut)
        try:
            process.communicate(timeout=seconds * draw.uniform(0.3, 0.95))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    if not (cut / RESULTS[name]).exists() or name in ("pretrain", "finetune", "probe"):
        finish(name, toys, cut)
    assert result(name, cut) == result(name, whole)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_sentence(toys: Path, tmp_path: Path, name: str) -> None:
    process = start(name, toys, tmp_path, limit=FULL_AFTER)
    _, error = process.communicate()
    assert process.returncode == 1 and "Traceback" not in error, error[-2000:]
    assert "File too large" in error or "space" in error, error[-2000:]
    finish(name, toys, tmp_path)
    assert (tmp_path / RESULTS[name]).exists()


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").is_dir(), reason="root writes everywhere")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_cannot_be_written_is_one_sentence(toys: Path, tmp_path: Path, name: str) -> None:
    place = Path("/proc") if os.geteuid() == 0 else tmp_path / "locked"
    if os.geteuid() != 0:
        place.mkdir(mode=0o555)
    process = start(name, toys, place / "inside")
    _, error = process.communicate()
    assert process.returncode in (1, 2) and "Traceback" not in error, error[-2000:]
    assert len(error.strip().splitlines()) <= 3
