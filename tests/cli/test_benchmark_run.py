"""``longstrand benchmark run | report`` and ``longstrand probe``: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longstrand.benchmarks.probe_run import ProbeConfig, run_probe
from longstrand.cli.main import main
from longstrand.config import build
from longstrand.errors import UsageError
from tests.benchmarks.test_run import motif_rows
from tests.toys import tiny_checkpoint


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    tiny_checkpoint(folder / "tiny")
    (folder / "data").mkdir()
    lines = ["sequence,label", *(f"{text},{label}" for text, label in motif_rows(120))]
    (folder / "data" / "motif.csv").write_text("\n".join(lines) + "\n")
    return folder


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    output = capsys.readouterr()
    return int(end.value.code or 0), output.out, output.err


def test_run_and_report(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("benchmark", "run", "--data", world / "data", "--output", world / "run", "--baselines", "majority,kmer")
    code, out, err = call(capsys, *words, "protocol.resamples=20", "protocol.kmer=3", "--fewshot", "20")
    assert code == 0 and "[1/4] own/motif: majority, seed 0, 20 rows" in err
    lines = out.splitlines()
    assert lines[0] == "own/motif: mcc on 24 test rows, after 84 training rows (higher is better)"
    assert any(line.startswith("* k-mer regression ") and " to " in line for line in lines)
    assert any("k-mer regression (20 rows)" in line for line in lines)
    (world / "run" / "report.html").unlink()
    code, again, _ = call(capsys, "benchmark", "report", world / "run")
    assert code == 0 and again == out and (world / "run" / "report.html").exists()
    code, text, _ = call(capsys, "benchmark", "report", world / "run", "--json")
    assert code == 0 and {row["method"] for row in json.loads(text)["summary"]} == {"majority", "k-mer regression"}


def test_a_failed_cell_is_the_exit_code(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*unused: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr("longstrand.benchmarks.run.run_trial", crash)
    words = ("benchmark", "run", "--data", world / "data", "--output", world / "failed", "--baselines", "majority")
    code, out, err = call(capsys, *words)
    assert code == 1 and out == ""
    assert "failed: own/motif: majority, seed 0: RuntimeError: no luck" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["benchmark", "run", "--data", "d"], "'output' is required; give --output"),
        (["benchmark", "run", "--output", "o", "--seeds", "1,x"], "--seeds takes whole numbers with commas"),
        (["benchmark", "run", "--output", "o", "model=x"], "unknown key 'model' (did you mean 'models'?)"),
        (["benchmark", "report", "nowhere"], "nowhere: no benchmark run"),
        (["probe", "--model", "m"], "'output' is required; give --output"),
    ],
    ids=["output", "seeds", "key", "report", "probe"],
)
def test_what_is_refused(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, *words)
    assert code in (1, 2) and message in err and "Traceback" not in err


def test_probe(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = world / "data" / "motif.csv"
    words = ("probe", "--model", world / "tiny", "--train", table, "--output", world / "probed", "--trials", 2)
    code, out, err = call(capsys, *words, "--layers", "0,-1", "probe.folds=2", "resamples=20")
    assert code == 0, err
    assert out.startswith("chosen: layer ") and "tiny: probe" in out and "k-mer regression" in out
    results = {
        result["kind"]: result for result in json.loads((world / "probed" / "results.json").read_text())["results"]
    }
    found = results["probe"]["details"]["probe"]
    assert len(found["curve"]) == 6 and len(found["trials"]) == 2
    assert results["probe"]["rows"] == {"train": 96, "valid": 12, "test": 12}
    assert "layers of" in (world / "probed" / "report.html").read_text()
    code, again, _ = call(capsys, *words, "--layers", "0,-1", "probe.folds=2", "resamples=20")
    assert code == 0 and again == out
    code, text, _ = call(capsys, *words, "--layers", "0,-1", "probe.folds=2", "resamples=20", "--json")
    assert json.loads(text)["kind"] == "probing"


def test_probing_needs_test_rows(world: Path, tmp_path: Path) -> None:
    data = {"train": str(world / "data" / "motif.csv"), "test_fraction": 0.0}
    with pytest.raises(UsageError, match="probing needs test rows"):
        run_probe(build(ProbeConfig, {"output": str(tmp_path), "model": str(world / "tiny"), "data": data}))


def test_a_report_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "benchmark", "report")
    assert code == 2 and "RUN" in err
    code, _, err = call(capsys, "benchmark", "report", tmp_path)
    assert code == 1 and "no benchmark run" in err
