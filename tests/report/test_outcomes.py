"""Reports of commands that write files: numbers by hand, files with their hashes, pages of every verb."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from longstrand.cli.main import main
from longstrand.data.targets import Task
from longstrand.evaluation.metrics import Scores, _calibration, evaluate
from longstrand.genome.intervals import Interval
from longstrand.report.locus import Locus, Track
from longstrand.report.outcomes import _locus, predictions_page, read_output
from longstrand.report.sections import calibration, files_table, histogram


def test_histogram_counts_shares_and_percentiles() -> None:
    found = histogram("t", "e", {"a": [0.0, 0.0, 0.0, 4.0, np.nan], "b": [2.0]}, "x", bins=4)
    assert found.lines[0].x == [0.5, 1.5, 2.5, 3.5]
    assert found.lines[0].y == [0.75, 0, 0, 0.25] and found.lines[1].y == [0, 0, 1, 0]
    assert found.table is not None
    assert found.table[1][0][:2] == ["a", 4] and found.table[1][0][5] == 0.0  # the median
    with pytest.raises(ValueError, match="no number"):
        histogram("t", "e", {"a": [np.nan]}, "x")


def test_calibration_compares_groups_of_equal_size() -> None:
    yes = np.arange(20) / 20 + 0.025  # groups of two: 0.05, 0.15, ...; true from the eleventh on
    truth = (np.arange(20) >= 10).astype(int)
    task = Task("single_label", ("no", "yes"), ("label",))
    found = evaluate(Scores(task, truth, np.stack([1 - yes, yes], axis=1)), num_resamples=0)
    numbers = found["curves"]["yes"]["calibration"]
    assert numbers["predicted"] == pytest.approx(np.arange(0.05, 1, 0.1), abs=1e-5)
    assert numbers["observed"] == [0] * 5 + [1] * 5 and numbers["rows"] == [2] * 10
    drawn = calibration("t", {"m": found}, positive="yes")
    assert drawn is not None and [line.name for line in drawn.lines] == ["m", "perfect"]
    assert calibration("t", {"m": {"curves": {}}}, positive="yes") is None


def test_files_are_listed_with_size_and_hash(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a b.txt").write_text("ACGT")
    (tmp_path / "out" / "report.html").write_text("not listed")
    found = files_table([tmp_path / "out"], folder=tmp_path / "page")
    link = "../out/a b.txt"
    assert found.rows == [[{"value": link, "link": link}, 4, hashlib.sha256(b"ACGT").hexdigest()]]


def rows(kind: str) -> pl.DataFrame:
    values = np.linspace(0, 1, 30, dtype=np.float32)
    numbers = {f"{kind}_no": 1 - values, f"{kind}_yes": values}
    calls = {"prediction": ["no"] * 15 + ["yes"] * 15}
    return pl.DataFrame({"index": range(30), "name": [f"s{i}" for i in range(30)], **calls, **numbers})


@pytest.mark.parametrize("ending", [".csv", ".tsv.gz", ".parquet"])
def test_page_of_predictions_shows_spread_calls_and_extreme_rows(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"calls{ending}"
    if ending == ".parquet":
        rows("probability").write_parquet(path)
    elif ending == ".csv":
        rows("probability").write_csv(path)
    else:
        import gzip

        path.write_bytes(gzip.compress(rows("probability").write_csv(separator="\t").encode()))
    values, table, total = read_output(path)
    assert list(values) == ["probability_no", "probability_yes"] and total == 30 and table is not None
    predictions_page(tmp_path / "page", path, title="Calls", notes=["note: 3 were cut."], about={"model": "m"})
    found = json.loads((tmp_path / "page" / "report.json").read_text())
    parts: dict[str, Any] = {part["title"]: part for part in found["sections"]}
    assert parts["What was called"]["rows"] == [["no", 15, "50.0%"], ["yes", 15, "50.0%"]]
    assert parts["The ten rows with the highest probability_yes"]["rows"][0][1] == "s29"
    assert {row[1] for row in parts["The ten least sure rows"]["rows"][:2]} == {"s14", "s15"}
    assert parts["Files"]["rows"][0][0]["link"] == f"../calls{ending}"
    assert found["summary"][1:] == ["3 were cut."]
    page = (tmp_path / "page" / "report.html").read_text()
    assert f'href="../calls{ending}"' in page and "<script" not in page


def test_the_highest_row_is_drawn_along_its_bases(tmp_path: Path) -> None:
    places = {"chrom": ["chr1"] * 6, "start": [100] * 3 + [500] * 3, "end": [130] * 3 + [530] * 3}
    numbers = {"bin": [0, 1, 2] * 2, "probability_a": np.float32([0.1, 0.2, 0.3, 0.9, 0.5, 0.1])}
    table = pl.DataFrame({"index": [0] * 3 + [1] * 3, "name": ["r"] * 3 + ["s"] * 3, **places, "strand": ["-"] * 6,
                          **numbers})  # fmt: skip
    table.write_csv(tmp_path / "bins.csv")
    page = predictions_page(tmp_path / "page", tmp_path / "bins.csv", title="Bins", notes=[], about={})
    assert "Along s, which has the highest probability_a" in page.read_text()
    (found,) = _locus(table, ["probability_a"])
    assert isinstance(found, Locus) and found.region == Interval("chr1", 500, 530)
    track = found.components[1]
    assert isinstance(track, Track) and (track.start, track.bin_size) == (500, 10)
    np.testing.assert_array_equal(track.values, np.float32([0.1, 0.5, 0.9]))


def test_vectors_show_their_lengths(tmp_path: Path) -> None:
    path = tmp_path / "vectors.parquet"
    pl.DataFrame({"index": [0, 1], "e0": np.float32([3, 0]), "e1": np.float32([4, 0])}).write_parquet(path)
    predictions_page(tmp_path / "page", path, title="Vectors", notes=[], about={})
    first, *_ = json.loads((tmp_path / "page" / "report.json").read_text())["sections"]
    assert first["table"][1] == [["length of the vector", 2, 0.05, 0.25, 1.25, 2.5, 3.75, 4.75, 4.95]]


def test_commands_write_their_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fasta = tmp_path / "g.fa"
    fasta.write_text(">one\n" + "ACGTTGCAAC" * 60 + "\n")
    words = [
        ["tokenizer", "train", fasta, "--output", tmp_path / "tokens", "--kind", "kmer", "--k", "3"],
        ["tokenizer", "inspect", tmp_path / "tokens", fasta],
        ["plan", "--model", "tiny", "--length", "64", "--batch", "1", "--mode", "infer", "--device", "a100"],
        ["embed", "mixed_6mer_1m", fasta, "--output", tmp_path / "vectors.parquet"],
    ]
    for number, command in enumerate(words):
        page = tmp_path / f"page{number}"
        with pytest.raises(SystemExit) as ended:
            main([*map(str, command), "--report", str(page)])
        assert ended.value.code == 0, capsys.readouterr().err
        found = json.loads((page / "report.json").read_text())
        titles = [part["title"] for part in found["sections"]]
        assert titles[-1] == "Where this comes from" and len(titles) > 1
    assert "Files" in titles


def test_equal_probabilities_share_a_group() -> None:
    """A constant answer is one point, not ten that depend on the order of the rows."""
    found = _calibration(np.arange(40) % 4 == 0, np.full(40, 0.3))
    assert found == {"predicted": [0.3], "observed": [0.25], "rows": [40]}
    found = _calibration(np.array([True, False, True]), np.array([0.9, 0.2, 0.2]))
    assert found == {"predicted": [0.2, 0.9], "observed": [0.5, 1.0], "rows": [2, 1]}
