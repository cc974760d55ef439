"""The SLURM scripts: shell that parses, and what they start, with the variables that SLURM sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from longstrand.cli.main import main
from tests.toys import tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "recipes" / "slurm").glob("*.sbatch"))


def test_there_are_three() -> None:
    assert [path.stem for path in SCRIPTS] == ["benchmark", "pretrain", "variants"]


def stand_ins(folder: Path, code: int) -> dict[str, str]:
    """Make programs called srun, scontrol and longstrand that write down how they were called."""
    texts = {
        "srun": '#!/bin/bash\nwhile [ "${1:0:2}" = -- ]; do shift; done\nSLURM_PROCID=3 SLURM_LOCALID=1 exec "$@"\n',
        "scontrol": '#!/bin/bash\n[ "$1" = show ] && echo node1 && echo node2\necho "scontrol $*" >> "$LOG"\n',
        "longstrand": '#!/bin/bash\necho "$RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR longstrand $*" >> "$LOG"\n'
        f"exit {code}\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    variables = {
        "SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16", "USER": "me", "LOG": str(folder / "log"),
    }  # fmt: skip
    return {"PATH": f"{folder}:{os.environ['PATH']}", **variables}


@pytest.mark.parametrize("code", [0, 1, 138, 143])
def test_pretraining_is_requeued_when_it_was_stopped(tmp_path: Path, code: int) -> None:
    script = ROOT / "recipes" / "slurm" / "pretrain.sbatch"
    done = subprocess.run(["bash", script, "--output", "a b"], env=stand_ins(tmp_path, code), capture_output=True)
    log = (tmp_path / "log").read_text()
    assert done.returncode == code, done.stderr
    assert "3/8 1 node1 longstrand pretrain --output a b" in log
    assert ("scontrol requeue 12" in log) == (code > 100)


@pytest.mark.parametrize("name", ["variants", "benchmark"])
def test_arrays_have_shares(tmp_path: Path, name: str) -> None:
    script = ROOT / "recipes" / "slurm" / f"{name}.sbatch"
    subprocess.run(["bash", script, "MODEL"], env=stand_ins(tmp_path, 0), check=True)
    assert (tmp_path / "log").read_text().endswith("MODEL --shard 3/16\n")


def test_shares_join_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two shares, the second first: the last joins; the result is that of one process."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    model = tiny_checkpoint(tmp_path / "tiny")
    rows = tmp_path / "rows.csv"
    rows.write_text("sequence\n" + "\n".join("ACGTTGCA"[: 3 + n % 5] * 2 for n in range(20)) + "\n")

    def embed(output: str, *more: str) -> int:
        with pytest.raises(SystemExit) as end:
            main(
                [
                    "embed",
                    str(model),
                    str(rows),
                    "--output",
                    str(tmp_path / output),
                    "--device",
                    "cpu",
                    "--part-rows",
                    "3",
                    *more,
                ]
            )
        return int(end.value.code or 0)

    assert embed("two.csv", "--shard", "2/2") == 0 and not (tmp_path / "two.csv").exists()
    assert embed("two.csv", "--shard=1/2") == 0
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)
    assert embed("one.csv") == 0
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    capsys.readouterr()
    for words, message in [
        (["embed", "--shard", "3/2"], "'3/2' is no share"),
        (["pretrain", "--shard", "1/2"], "is for predict"),
    ]:
        with pytest.raises(SystemExit):
            main(words)
        assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["embed", "pretrain"])
@pytest.mark.parametrize("home", [None, "/nowhere"])
def test_no_home_no_network_no_right_to_write(tmp_path: Path, verb: str, home: str | None) -> None:
    """A user without a home folder or with one that is not there, whose cache cannot be written, offline."""
    words = ["--device", "cpu", "--output", str(tmp_path / "out.csv")]
    if verb == "embed":
        model = tiny_checkpoint(tmp_path / "tiny")
        (tmp_path / "rows.csv").write_text("sequence\nACGTACGT\n")
        words += [str(model), str(tmp_path / "rows.csv")]
    else:
        (tmp_path / "toy.fa").write_text(">a\n" + "ACGTTGCA" * 300 + "\n>b\n" + "ACCT" * 200 + "\n")
        words += ["--genome", str(tmp_path / "toy.fa"), "--preset", "tiny", "--steps", "2", "tokenizer.kind=kmer"]
        words += ["training.max_tokens=32", "training.batch_size=2", "data.hold_out.contigs=[b]"]
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    variables |= {"LONGSTRAND_CACHE": "/proc/none"} if home is None else {"HOME": home}
    command = [sys.executable, "-B", "-m", "longstrand", verb, *words]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "out.csv").exists(), done.stderr
