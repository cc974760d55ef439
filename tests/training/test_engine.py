"""Weights shared out over processes train as whole ones do, and come back bit for bit."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from longstrand.cli.main import main
from longstrand.config import build
from longstrand.errors import CheckpointError, ConfigError, UsageError
from longstrand.training.engine import is_sharded, write_plain, write_sharded
from longstrand.training.pretrain import pretrain
from longstrand.training.settings import PretrainConfig
from tests.part_toys import in_child
from tests.toys import tiny_checkpoint
from tests.training.engine_jobs import JOBS, STEPS, STOP, alone, pair


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all jobs in one process and in a pair, on contigs of 40 and of 3,000 bases."""
    folder = tmp_path_factory.mktemp("engine")
    letters = random.Random(1)
    sizes = {f"c{number}": 3000 if number % 8 == 0 else 40 for number in range(64)} | {"held": 900}
    records = (f">{name}\n{''.join(letters.choices('ACGT', k=size))}\n" for name, size in sizes.items())
    (folder / "toy.fa").write_text("".join(records))
    for name, work in {"two": pair, "one": alone}.items():
        process = in_child(partial(work, folder / name))
        process.join(timeout=300)
        assert process.exitcode == 0, name
    return folder


def check_no_error(world: Path, job: str) -> None:
    errors = [path.read_text() for path in world.glob(f"*/error-{job}-*.txt")]
    assert not errors, "\n".join(errors)


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_two_processes_equal_one(world: Path, job: str) -> None:
    """The loss is the mean over all labelled targets of the step, though one process may have ten times as many."""
    check_no_error(world, job)
    weights, others = (load_file(world / side / job / "model" / "model.safetensors") for side in ("one", "two"))
    assert weights.keys() == others.keys() and len(weights) > 10
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, rtol=1e-7, atol=1e-9)
    rows = [json.loads(line) for line in (world / "two" / job / "targets.jsonl").read_text().splitlines()]
    assert len(rows) == STEPS * 2 and max(max(row) / (min(row) + 1) for row in rows) > 3
    logs = [(world / side / job / "metrics.jsonl").read_text().splitlines() for side in ("one", "two")]
    losses = [[row["loss"] for row in map(json.loads, lines) if "loss" in row] for lines in logs]
    # Weights are float64; the Trainer adds up losses in float32, whose steps are 1.2e-7 of the value.
    assert len(losses[0]) == STEPS and losses[1] == pytest.approx(losses[0], rel=3e-7)


@pytest.mark.slow
def test_a_sharded_checkpoint_becomes_a_plain_folder_and_back(world: Path, job: str = "shared_out") -> None:
    check_no_error(world, job)
    snapshot = load_file(world / "two" / job / "snapshots" / f"step-{STOP}" / "model.safetensors")
    assert is_sharded(world / "two" / f"{job}-state")
    for name in ("plain", "back"):
        found = load_file(world / "two" / f"{job}-{name}" / "model.safetensors")
        assert found.keys() == snapshot.keys()
        assert all(torch.equal(found[key], snapshot[key]) for key in snapshot)


def test_sharded_and_back_in_one_process(tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path / "tiny")
    made = write_sharded(model, tmp_path / "sharded")
    back = write_plain(made, tmp_path / "back")
    before, after = (load_file(folder / "model.safetensors") for folder in (model, back))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    next((made / "pytorch_model_fsdp_0").glob("*.distcp")).unlink()
    with pytest.raises(CheckpointError, match="its shards are not whole"):
        write_plain(made, tmp_path / "again")


def test_the_command_converts_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_checkpoint(tmp_path / "tiny")

    def convert(source: str, to: str, output: str, *more: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["convert", str(tmp_path / source), "--to", to, "--output", str(tmp_path / output), *more])
        found = capsys.readouterr()
        return found.err if end.value.code else found.out

    assert "in sharded format" in convert("tiny", "sharded", "sharded")
    assert "in longstrand format" in convert("sharded", "longstrand", "plain")
    assert (model / "model.safetensors").read_bytes() == (tmp_path / "plain" / "model.safetensors").read_bytes()
    for words, message in [
        (("sharded", "sharded", "more"), "is sharded already"),
        (("sharded", "published", "more"), "unknown format"),
        (("sharded", "longstrand", "plain"), "exists"),
        (("sharded", "longstrand", "more", "--family", "nt"), "--family belongs"),
    ]:
        assert message in convert(*words)


def test_sharing_out_needs_processes(tmp_path: Path) -> None:
    (tmp_path / "toy.fa").write_text(">a\n" + "ACGTTGCA" * 300 + "\n>b\n" + "ACCT" * 200 + "\n")
    values = {"output": tmp_path / "run", "data": {"genomes": str(tmp_path / "toy.fa"), "hold_out": {"contigs": ["b"]}},
              "tokenizer": {"kind": "kmer", "k": 2}, "model": {"preset": "tiny"},
              "training": {"parallel": "fsdp", "steps": 1, "max_tokens": 32, "device": "cpu"}}  # fmt: skip
    with pytest.raises(UsageError, match="start them with torchrun"):
        pretrain(build(PretrainConfig, values))
    del values["training"]["max_tokens"]
    with pytest.raises(ConfigError, match="would wait for ever"):
        build(PretrainConfig, values | {"memory": {"num_tokens": 2, "segment_length": 14, "segments": 3}})
