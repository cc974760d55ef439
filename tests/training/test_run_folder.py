"""Run folders: what resumes, what refuses, what is cleaned up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from pydantic import Field

from longstrand.config import StrictModel
from longstrand.errors import InputError, ResumeError
from longstrand.training.run_folder import MANIFEST, Mark, MetricsLog, RunFolder, flushing, is_complete, write_manifest


class Settings(StrictModel):
    output: str = "x"
    steps: int = 3
    inner: dict[str, int] = Field(default={"seed": 1})


def checkpoint(folder: Path, step: int) -> Path:
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    (made / "model.safetensors").write_bytes(b"weights" * step)
    (made / "optimizer.pt").write_bytes(b"moments")
    write_manifest(made)
    return made


def test_the_newest_complete_checkpoint_is_used(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", Settings())
    assert run.newest_checkpoint() is None
    for step in (9, 10, 100):
        checkpoint(run.path, step)
    assert run.newest_checkpoint() == run.path / "checkpoint-100"
    (run.path / "checkpoint-100" / "optimizer.pt").unlink()
    assert run.newest_checkpoint() == run.path / "checkpoint-10"
    (run.path / "checkpoint-10" / "optimizer.pt").write_bytes(b"mOments")
    assert run.newest_checkpoint() == run.path / "checkpoint-9"
    (run.path / "checkpoint-9" / MANIFEST).write_text("{")
    assert run.newest_checkpoint() is None


def test_leftovers_of_a_kill_are_swept(tmp_path: Path) -> None:
    (tmp_path / "run" / "tmp-save-3" / "checkpoint-3").mkdir(parents=True)
    run = RunFolder.open(tmp_path / "run", Settings())
    assert not list(run.path.glob("tmp-*"))


def test_changed_settings_refuse_and_name_the_change(tmp_path: Path) -> None:
    RunFolder.open(tmp_path / "run", Settings()).close()
    checkpoint(tmp_path / "run", 1)
    RunFolder.open(tmp_path / "run", Settings(output="elsewhere")).close()
    with pytest.raises(ResumeError, match=r"other settings or data \(inner.seed: 1 -> 2\)"):
        RunFolder.open(tmp_path / "run", Settings(inner={"seed": 2}))


def test_a_run_that_failed_before_training_does_not_bind_the_next(tmp_path: Path) -> None:
    first = RunFolder.open(tmp_path / "run", Settings(inner={"seed": 7}))
    first.check_inputs({"genomes": {"a": "sha256:1"}})
    (first.path / "tokenizer").mkdir()
    first.close()
    RunFolder.open(tmp_path / "run", Settings(inner={"seed": 7})).close()
    assert (tmp_path / "run" / "tokenizer").exists(), "the same settings keep what was made"
    second = RunFolder.open(tmp_path / "run", Settings())
    second.check_inputs({"genomes": {"a": "sha256:2"}})
    assert not (second.path / "tokenizer").exists() and "seed: 1" in (second.path / "config.yaml").read_text()


def test_changed_inputs_refuse(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", Settings())
    run.check_inputs({"genomes": {"a": "sha256:1"}})
    run.check_inputs({"genomes": {"a": "sha256:1"}})
    with pytest.raises(ResumeError, match=r"genomes.a: 'sha256:1' -> 'sha256:2'"):
        run.check_inputs({"genomes": {"a": "sha256:2"}})


def test_a_node_with_other_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.open(tmp_path / "run", Settings())
    old = {"genomes": {"yeast": "sha256:2"}}
    monkeypatch.setattr("longstrand.training.run_folder.gather", lambda mine: [mine, mine, old])
    with pytest.raises(InputError, match=r"process 2 reads other data than process 0 \(genomes.yeast: 'sha256:1' -> "):
        run.check_inputs({"genomes": {"yeast": "sha256:1"}})
    assert not (run.path / "inputs.json").exists()


def test_foreign_folders_refuse(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResumeError, match="is a file"):
        RunFolder.open(tmp_path / "file", Settings())
    with pytest.raises(ResumeError, match="cannot be made"):
        RunFolder.open(tmp_path / "file" / "below", Settings())
    checkpoint(tmp_path / "foreign", 5)
    with pytest.raises(ResumeError, match=r"checkpoints but no config.yaml"):
        RunFolder.open(tmp_path / "foreign", Settings())


def test_two_processes_cannot_share_a_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.training.test_run_folder import Settings\n"
        "from longstrand.training.run_folder import RunFolder\n"
        "run = RunFolder.open(Path(sys.argv[1]), Settings()); print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert other.stdout is not None and other.stdout.readline() == "open\n"
    with pytest.raises(ResumeError, match="another process is running in this folder"):
        RunFolder.open(tmp_path / "run", Settings())
    other.kill()
    other.communicate()
    RunFolder.open(tmp_path / "run", Settings()).close()


def test_manifest_lists_every_file(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 1)
    (made / "deep").mkdir()
    (made / "deep" / "x").write_text("1")
    write_manifest(made)
    assert set(json.loads((made / MANIFEST).read_text())["files"]) == {"model.safetensors", "optimizer.pt", "deep/x"}
    assert is_complete(made)
    assert not is_complete(tmp_path / "nothing")


def test_metrics_are_cut_back_and_a_cut_line_is_dropped(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.rows() == []
    log.cut_back(3)
    for step in (1, 2, 2, 3):
        log.append({"step": step, "loss": float(step)})
    with open(log.path, "a") as file:
        file.write('{"step": 4, "lo')
    log.cut_back(2)
    assert [row["step"] for row in log.rows()] == [1, 2, 2]
    log.append({"step": 3, "eval_loss": 1.5})
    log.write_csv(tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "step,loss,eval_loss",
        "1,1.0,",
        "2,2.0,",
        "2,2.0,",
        "3,,1.5",
    ]


def test_report_marks_the_end(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", Settings())
    assert run.report is None
    run.finish({"x": 1})
    assert run.report == {"x": 1}


def test_a_disk_that_takes_nothing_is_said_even_when_it_says_so_once(tmp_path: Path, monkeypatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    (tmp_path / "__0_0.distcp").write_bytes(b"x")
    with pytest.raises(OSError, match="Input/output"), flushing(tmp_path):
        pass
    with flushing(tmp_path / "absent") as marks:
        pass
    assert not marks


def test_shards_are_checksummed_while_they_grow(tmp_path: Path) -> None:
    parts = [b"ACGT" * 1000, b"TTTT", b"", b"GG" * 5000]
    (tmp_path / "a").mkdir()
    with flushing(tmp_path) as marks, open(tmp_path / "a" / "__0_0.distcp", "wb") as shard:
        for number, part in enumerate(parts):
            shard.write(part)
            shard.flush()
            while not number and not marks:
                time.sleep(0.01)
    (tmp_path / "a" / "__1_0.distcp").write_bytes(b"of another process")
    whole = b"".join(parts)
    assert marks == {"a/__0_0.distcp": (len(whole), zlib.crc32(whole))}
    write_manifest(tmp_path, {**marks, "a/__1_0.distcp": Mark(3, 7)})  # no checksum of the whole: made anew
    entries = json.loads((tmp_path / MANIFEST).read_text())["files"]
    assert {name: entry["crc32"] for name, entry in entries.items()} == {
        "a/__0_0.distcp": zlib.crc32(whole), "a/__1_0.distcp": zlib.crc32(b"of another process"),
    }  # fmt: skip
    assert is_complete(tmp_path)
