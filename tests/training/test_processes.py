"""Two processes train what one trains: the same rows, losses, weights and reports."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.genome.test_haplotypes import write as write_vcf
from tests.part_toys import in_child
from tests.toys import tiny_checkpoint
from tests.training.processes import alone, pair

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
JOBS = ["pretrain64", "pretrain32", "classes", "stopped", "lora", "memory", "search"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all jobs in one process (``one``) and in a pair (``two``), at the same time."""
    folder = tmp_path_factory.mktemp("processes")
    letters = random.Random(0)
    with open(folder / "toy.fa", "w") as file:
        for name, length in {"one": 2_000, "two": 500}.items():
            text = "".join(letters.choice("ACGT") + letters.choice("ACGT") + "T" for _ in range(length))
            file.write(f">{name}\n{text}\n")
            if name == "one":
                people = [
                    (name, p + 1, ".", text[p], f"{text[p]}A", ".", ".", ".", "GT", "1|0") for p in range(9, 900, 60)
                ]
                write_vcf(folder / "people.vcf", people, ["S"])
    rows = []
    for kind in [0, 1] * 17:
        shares = [1, 7, 1, 1] if kind else [3, 1, 3, 3]
        rows.append(f"{''.join(letters.choices('ACGT', shares, k=letters.randint(20, 50)))},{kind}")
    (folder / "train.csv").write_text("sequence,label\n" + "\n".join(rows) + "\n")
    (folder / "data").mkdir()
    shutil.copy(folder / "train.csv", folder / "data" / "toy.csv")
    tiny_checkpoint(folder / "tiny")
    runs = {name: in_child(partial(work, folder / name)) for name, work in {"two": pair, "one": alone}.items()}
    for name, process in runs.items():
        process.join(timeout=300)
        errors = "\n".join(path.read_text() for path in (folder / name).glob("error-*.txt"))
        assert process.exitcode == 0, f"{name}: {process.exitcode}\n{errors}"
    return folder


def records(world: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((world / name).glob("record-*.json"))]


def by_step(entries: list[list[Any]]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for step, value in entries:
        found.setdefault(step, []).append(value)
    return found


@pytest.mark.parametrize("job", JOBS)
def test_the_same_rows_in_every_step(world: Path, job: str) -> None:
    alone, pair = records(world, "one"), records(world, "two")
    assert [record["processes"] for record in (*alone, *pair)] == [1, 2, 2]
    one = by_step(alone[0][job]["rows"])
    two = [by_step(record[job]["rows"]) for record in pair]
    assert list(one) == list(two[0]) == list(two[1]) and len(one) > 2
    for step, passes in one.items():
        joined = [row for rows in passes for row in rows]
        assert sorted(joined) == sorted(row for record in two for rows in record[step] for row in rows)


@pytest.mark.parametrize("job", JOBS)
def test_the_same_losses_and_weights(world: Path, job: str) -> None:
    """In float64 rounding is all that may differ; in float32 ten steps of Adam enlarge it."""
    near = 1e-4 if job == "pretrain32" else 1e-9
    one = by_step(records(world, "one")[0][job]["losses"])
    two = [by_step(record[job]["losses"]) for record in records(world, "two")]
    for step, losses in one.items():
        assert sum(sum(record[step]) for record in two) / 2 == pytest.approx(sum(losses), rel=near)
    if job == "pretrain32":
        return
    name = "adapter_model.safetensors" if job == "lora" else "model.safetensors"
    weights, others = (load_file(world / side / job / "model" / name) for side in ("one", "two"))
    assert weights.keys() == others.keys()
    for key, tensor in weights.items():
        torch.testing.assert_close(tensor, others[key], rtol=1e-9, atol=1e-9)


def test_the_gradients_of_the_first_step(world: Path) -> None:
    one, two = (torch.load(world / side / "pretrain32.gradients") for side in ("one", "two"))
    assert one.keys() == two.keys() and len(one) > 10
    for name, gradient in one.items():
        assert float((gradient - two[name]).norm()) <= 1e-5 * float(gradient.norm()) + 1e-9, name


def plain(value: Any) -> Any:
    """Leave out what depends on place and time."""
    if isinstance(value, dict):
        skipped = (
            "provenance",
            "inputs",
            "settings",
            "cost",
            "seconds",
            "wall_seconds",
            "file",
            "split_origin",
            "weights",
            "embedding_seconds",
        )
        return {key: plain(item) for key, item in value.items() if key not in skipped}
    return [plain(item) for item in value] if isinstance(value, list) else value


def same(one: Any, two: Any, where: str = "") -> None:
    """Compare two reports, numbers within 1e-6 (predictions are kept in float32)."""
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            same(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(two), where
        for number, (mine, theirs) in enumerate(zip(one, two)):
            same(mine, theirs, f"{where}[{number}]")
    elif isinstance(one, float):
        assert two == pytest.approx(one, rel=1e-6, abs=1e-9, nan_ok=True), where
    else:
        assert one == two, where


@pytest.mark.parametrize("job", [job for job in JOBS if job != "pretrain32"])
def test_the_same_report(world: Path, job: str) -> None:
    one, two = (json.loads((world / side / job / "report.json").read_text()) for side in ("one", "two"))
    same(plain(one), plain(two))
    if job.startswith("pretrain"):
        assert one["bases_seen"] == two["bases_seen"] > 0
    if job == "stopped":
        assert one["steps"] < 12 * 3


def test_the_curriculum_went_on_in_both(world: Path) -> None:
    rows = [json.loads(line) for line in (world / "two" / "memory" / "metrics.jsonl").read_text().splitlines()]
    assert {row["segments"] for row in rows if "loss" in row} == {1, 2}


def test_commands_share_out_their_work(world: Path) -> None:
    """Each command ends well in both processes; what it writes is what one process writes."""
    for record in (*records(world, "one"), *records(world, "two")):
        verbs = ("predict", "embed", "probe", "benchmark", "variants")
        assert {name: record[name] for name in verbs} == dict.fromkeys(verbs, 0)
    for name in ("predictions.csv", "vectors.csv"):
        assert (world / "one" / name).read_bytes() == (world / "two" / name).read_bytes()
    scored = [(world / side / "scored.vcf").read_bytes().split(b"#CHROM")[1] for side in ("one", "two")]
    assert scored[0] == scored[1] and scored[0].count(b"LS_FLANK_H1=") == 15
    for folder, kinds in (("probed", {"baseline", "probe"}), ("compared", {"baseline", "finetune", "probe"})):
        found = [json.loads((world / side / folder / "results.json").read_text()) for side in ("one", "two")]
        assert {result["kind"] for result in found[0]["results"]} == kinds
        for part in ("results", "summary", "comparisons", "ranks", "errors"):
            same(plain(found[0][part]), plain(found[1][part]), f"{folder} {part}")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_process_ends_both_and_any_number_resumes(tmp_path: Path, processes: int) -> None:
    """One of two is killed after a checkpoint; one or two go on and reach the weights of an uninterrupted run."""
    letters = random.Random(0)
    (tmp_path / "toy.fa").write_text("".join(f">{name}\n{''.join(letters.choices('ACGT', k=6000))}\n" for name in "ab"))
    fields = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    sizes = f"model.settings={json.dumps(fields | {'hidden_dropout': 0.0})}"
    words = [
        "-m",
        "longstrand",
        "pretrain",
        "--genome",
        str(tmp_path / "toy.fa"),
        "--preset",
        "tiny",
        "--device",
        "cpu",
    ]
    words += ["--steps", "300", "data.hold_out.contigs=[b]", "tokenizer.kind=kmer", "tokenizer.k=3", sizes]
    words += ["training.max_tokens=32", "training.batch_size=4", "training.save_every=20", "training.eval_windows=2"]
    words += ["training.eval_every=300", "training.num_workers=0", "training.threads=1", "training.references=false"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    start = {1: [sys.executable], 2: TORCHRUN}
    straight = [*start[1], *words, "--output", str(tmp_path / "straight")]
    subprocess.run(straight, check=True, env=environment, capture_output=True, timeout=600)
    cut = [*words, "--output", str(tmp_path / "cut")]
    pair = subprocess.Popen([*start[2], *cut], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not list((tmp_path / "cut").glob("checkpoint-*")):
        assert pair.poll() is None
        time.sleep(0.05)
    workers = [child for child in psutil.Process(pair.pid).children() if "longstrand" in " ".join(child.cmdline())]
    workers[-1].kill()
    pair.communicate(timeout=300)
    assert pair.returncode != 0 and not (tmp_path / "cut" / "report.json").exists()
    done = subprocess.run([*start[processes], *cut], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("hold-out: ") == 1
    rows = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == sorted(set(steps)) and steps[-1] == 300
    one, two = (load_file(tmp_path / side / "model" / "model.safetensors") for side in ("straight", "cut"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=1e-3, atol=1e-3)
