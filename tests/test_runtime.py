"""Run-time: random streams, atomic files, devices, caches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from longstrand import runtime
from longstrand.errors import InputError, UsageError, nearest, one_of


def test_generator_is_a_pure_function_of_seed_index_purpose() -> None:
    draw = lambda *key: runtime.generator(*key).integers(0, 2**62, size=5).tolist()  # noqa: E731
    base = draw(1, 2, "mask")
    assert base == draw(1, 2, "mask")
    others = [draw(2, 2, "mask"), draw(1, 3, "mask"), draw(1, 2, "strand")]
    assert all(base != other for other in others)


def test_streams_of_neighbouring_samples_do_not_overlap() -> None:
    streams = [runtime.generator(0, index, "mask").integers(0, 2**62, size=1000) for index in range(20)]
    assert len(np.unique(np.concatenate(streams))) == 20_000


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file.txt"
    runtime.write_atomically(target, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"file.txt: cannot be written \(No space left on device\)"):
        runtime.write_atomically(target, "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_json_is_strict(tmp_path: Path) -> None:
    runtime.write_json(
        tmp_path / "a.json", {"x": np.float32(1.5), "nan": float("nan"), "y": np.arange(2), "p": Path("q")}
    )
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1.5, "nan": None, "y": [0, 1], "p": "q"}
    with pytest.raises(InputError, match="no such file"):
        runtime.read_json(tmp_path / "b.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(InputError, match="not readable as JSON"):
        runtime.read_json(tmp_path / "c.json")


def test_fingerprints(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"ACGT")
    assert runtime.fingerprint_file(tmp_path / "x") == runtime.fingerprint_bytes(b"ACGT")
    assert runtime.fingerprint_bytes(b"ACGT") != runtime.fingerprint_bytes(b"ACGA")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert runtime.resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="unknown device 'gpu9'"):
        runtime.resolve_device("gpu9")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="sees no CUDA device"):
        runtime.resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="only 1 CUDA"):
        runtime.resolve_device("cuda:3")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="this machine has none"):
        runtime.resolve_device("mps")


def test_unwritable_cache_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("LONGSTRAND_CACHE", str(blocked / "cache"))
    runtime.cache_dir.cache_clear()
    try:
        folder = runtime.cache_dir()
        assert folder.is_dir() and "cannot be written" in caplog.text
    finally:
        monkeypatch.undo()
        runtime.cache_dir.cache_clear()


@pytest.mark.parametrize(
    ("script", "program"),
    [
        ("/usr/bin/longstrand", ["longstrand"]),
        ("/somewhere/longstrand/__main__.py", ["longstrand"]),
        ("recipes/first_results.py", ["python", "recipes/first_results.py"]),
        ("/home/me/project/recipes/own.py", ["python", "recipes/own.py"]),
    ],
)
def test_the_command_names_the_script(script: str, program: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [script, "run"])
    assert runtime.provenance()["command"] == [*program, "run"]


def test_provenance_says_what_made_a_result() -> None:
    record = runtime.provenance(["longstrand", "demo"])
    assert record["command"] == ["longstrand", "demo"]
    assert record["versions"]["torch"] and record["machine"]["cores"] >= 1


def test_nearest_and_choices() -> None:
    assert nearest("hiden_size", ["hidden_size", "vocab_size"]) == " (did you mean 'hidden_size'?)"
    assert nearest("qqq", ["hidden_size"]) == ""
    assert one_of("a", ["a", "b"], "letter") == "a"
    with pytest.raises(UsageError, match=r"unknown letter 'c'.*; known: a, b"):
        one_of("c", ["a", "b"], "letter")


def test_a_process_leaves_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    from longstrand.runtime import leave_process_group, rank, world_size

    for name, value in {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "3,7"}.items():
        monkeypatch.setenv(name, value)
    launch = leave_process_group()
    assert (launch.rank, launch.count, launch.store) == (5, 6, None)
    assert (rank(), world_size(), os.environ["CUDA_VISIBLE_DEVICES"]) == (0, 1, "7")
    for local, gpus, chosen in (("0", 2, "0"), ("3", 2, "1"), ("3", 1, "0"), ("1", 0, None)):
        monkeypatch.setenv("WORLD_SIZE", "4")
        monkeypatch.setenv("LOCAL_RANK", local)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        leave_process_group()
        assert os.environ.pop("CUDA_VISIBLE_DEVICES", None) == chosen


def test_processes_meet_where_torchrun_keeps_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed import TCPStore

    from longstrand.runtime import Launch, leave_process_group

    alone = Launch(0, 2)
    assert alone.is_last() and not alone.wait_for("never announced")
    kept = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    launches = []
    for number in range(2):
        values = {"RANK": number, "WORLD_SIZE": 2, "LOCAL_RANK": number, "MASTER_ADDR": "127.0.0.1"}
        values |= {"MASTER_PORT": kept.port, "TORCHELASTIC_USE_AGENT_STORE": "True"}
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        launches.append(leave_process_group())
    launches[0].announce("tasks are built")
    assert launches[1].wait_for("tasks are built")
    assert not launches[1].is_last() and launches[0].is_last()


def test_processes_of_a_torchrun_say_a_sentence_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torch.distributed import TCPStore

    kept = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    values = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": kept.port}
    for name, value in (values | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, str(value))
    voices = [runtime.one_voice(), runtime.one_voice()]
    for voice in voices:
        voice("longstrand: both say this.")
    voices[1]("longstrand: one says this.")
    assert capsys.readouterr().err == "longstrand: both say this.\nlongstrand: one says this.\n"
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    runtime.one_voice()("longstrand: no store.")
    assert capsys.readouterr().err == "longstrand: no store.\n"


def test_free_cores_leave_out_what_others_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cores over two seconds: others kept them busy for 3 s (1.5 cores), so 2.5 are free."""
    samples = iter([(0.0, 10.0), (2.0, 13.0), (0.0, 10.0), (2.0, 30.0)])
    monkeypatch.setattr(runtime.FreeCores, "_sample", staticmethod(lambda: next(samples)))
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: set(range(4)))
    assert runtime.FreeCores().count() == 2
    assert runtime.FreeCores().count() == 1


def test_threads_are_given_back() -> None:
    import torch

    before = torch.get_num_threads()
    with runtime.torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


JOINED = """
import sys, torch
from longstrand import runtime
runtime.join_processes(torch.device("cpu"))
runtime.gather(1)
print("done")
runtime.part_processes(int(sys.argv[1]))
print("never")
"""


@pytest.mark.parametrize("code", [0, 138])
def test_joined_processes_end_with_their_code(code, tmp_path):
    words = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--no-python",
        sys.executable,
        "-c",
    ]
    log = ["--log-dir", str(tmp_path), "--redirects", "3"]
    ended = subprocess.run([sys.executable, *words[:2], *log, *words[2:], JOINED, str(code)], capture_output=True)
    said = [path.read_text() for path in tmp_path.rglob("stdout.log")]
    assert said == ["done\n"] * 2
    assert (ended.returncode == 0) == (code == 0)
    assert code == 0 or f"exitcode  : {code}" in ended.stderr.decode()


def test_a_run_may_lie_beside_its_inputs_but_replaces_none(tmp_path):
    (tmp_path / "model").mkdir()
    beside, inside = tmp_path / "t.csv", tmp_path / "model" / "t.csv"
    for path in (beside, inside):
        path.write_text("x")
    runtime.check_output(tmp_path, [beside, None], replaced=("model", "checkpoint-*"))
    for output, path, replaced in (
        (tmp_path, inside, ("model",)),
        (tmp_path, beside, ("*",)),
        (tmp_path, tmp_path, ("model",)),
        (beside, beside, ("model",)),
    ):
        with pytest.raises(UsageError, match="an output must not replace the input"):
            runtime.check_output(output, [path], replaced=replaced)
