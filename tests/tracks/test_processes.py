"""Tracks of contigs in real processes: two of torchrun share parts, one is killed, a join is killed (slow)."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import psutil
import pytest

from longstrand.models.checkpoint import save_checkpoint
from longstrand.models.pretrained import LongstrandForSequenceClassification
from tests.inference.test_contigs import K2, network
from tests.launch import finish, kill_one, start, wait_until

pytest.importorskip("pybigtools")


def predict(folder: Path, output: str, processes: int = 1) -> subprocess.Popen[str]:
    words = ["predict", "model", "g.fa", "--contigs", "all", "--window", "120", "--step", "120", "--bin-size", "40"]
    words += ["--strand", "+", "--threshold", "0.9", "--gap", "100", "--output", output]
    return start(words, folder, processes=processes)


def contents(folder: Path) -> dict[str, bytes]:
    """Read the tracks and calls; the rest names dates and commands."""
    kept = sorted(path for path in folder.iterdir() if path.suffix in (".bw", ".bed") or path.name == "trackDb.txt")
    return {path.name: path.read_bytes() for path in kept}


@pytest.mark.slow
def test_ranks_share_contigs_and_survive_kills(tmp_path: Path) -> None:
    save_checkpoint(LongstrandForSequenceClassification(network("sequence").config), K2, tmp_path / "model")
    draw = random.Random(0)
    texts = {name: "".join(draw.choices("ACGT", k=size)) for name, size in (("a", 1_300_000), ("b", 500_000))}
    (tmp_path / "g.fa").write_text("".join(f">{name}\n{text}\n" for name, text in texts.items()) + ">c\nNNN\n")
    status, said = finish(predict(tmp_path, "one"))
    assert status == 0, said
    wanted = contents(tmp_path / "one")
    assert len(wanted) == 3 + 3 + 1
    # two processes; one of them dies when a part is done
    parts = tmp_path / "two.parts"
    running = predict(tmp_path, "two", 2)
    wait_until(lambda: bool(list(parts.glob("part-*.json"))), running)
    kill_one(running)
    status, said = finish(running)
    kept = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in parts.glob("part-*.json")}
    assert status != 0 and not (tmp_path / "two").exists() and 0 < len(kept) < 4, said
    # the same command in two processes; both die while the parts are being joined
    running = predict(tmp_path, "two", 2)
    wait_until((tmp_path / ".tmp-two").exists, running)
    for worker in psutil.Process(running.pid).children():
        worker.kill()
    assert finish(running)[0] != 0 and not (tmp_path / "two").exists()
    assert len(list(parts.glob("part-*.json"))) == 4
    assert all((path.stat().st_mtime_ns, path.read_bytes()) == state for path, state in kept.items())
    # what is left is the join
    status, said = finish(predict(tmp_path, "two"))
    assert status == 0, said
    assert contents(tmp_path / "two") == wanted
    names = ["g.fa", "model", "one", "one.run.json", "two", "two.run.json"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".fai") == names
    # and two processes alone give the same bytes
    status, said = finish(predict(tmp_path, "three", 2))
    assert status == 0 and contents(tmp_path / "three") == wanted, said
