"""`longstrand doctor`: a healthy machine, damaged checkpoints, missing and old packages."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

from longstrand.cli.main import main
from longstrand.info import doctor
from tests.toys import tiny_checkpoint


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *map(str, words)])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


def test_a_healthy_machine_and_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, folder, "--json")
    report = json.loads(out)
    checks = {check["name"]: check for check in report["checks"]}
    assert (code, report["healthy"]) == (0, True)
    assert {"python", "torch", "transformers", "processor", "gpu", "tokenizer engine", "cache folder"} <= set(checks)
    assert checks["forward"]["status"] == "ok" and "every tensor accounted for" in checks["weights"]["found"]


def test_a_damaged_model(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    import shutil

    monkeypatch.setattr(doctor, "_self_test", lambda: iter(()))
    shutil.copytree(folder, tmp_path / "bad")
    weights = tmp_path / "bad" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    code, out, _ = run(capsys, tmp_path / "bad")
    assert code == 1 and "broken      weights" in out and "something will not work" in out
    (tmp_path / "bad" / "tokenizer.json").unlink()
    code, out, _ = run(capsys, tmp_path / "bad")
    assert code == 1 and "broken      tokenizer" in out and "put the model's tokenizer files beside" in out


def test_versions_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["torch>=2.11,<2.14", "absent-package>=1", "pytest>=8; extra == 'dev'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    old = {"torch": "2.3.0+cpu"}

    def version(name: str) -> str:
        if name not in old:
            raise importlib.metadata.PackageNotFoundError(name)
        return old[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    torch, absent = doctor._packages()
    assert (torch.status, torch.found) == ("broken", "2.3.0+cpu, supported is <2.14,>=2.11")
    assert (absent.status, absent.advice) == ("broken", "pip install 'absent-package>=1'")


def test_more_threads_than_the_container_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "container_cores", lambda: 0.5)
    (check,) = doctor._processor()
    assert check.status == "note" and "OMP_NUM_THREADS=1" in check.advice


def test_a_check_that_fails_is_a_finding() -> None:
    def _numba() -> Any:
        raise RuntimeError("no locator available\nfor file")

    (check,) = doctor._guarded(_numba)
    assert (check.name, check.status, check.found) == ("numba", "broken", "RuntimeError: no locator available")


def test_no_such_folder(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "nowhere")
    assert code == 1 and "nowhere: no such folder" in err
