"""Parts and sinks: by hand on small blocks, then killed, resumed, shared among ranks, on a full disk."""

from __future__ import annotations

import csv
import gzip
import json
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longstrand.errors import InputError, ResumeError, UsageError
from longstrand.inference import resumable as parts_module
from longstrand.inference.jobs import OutputColumns, part_sizes, write_predictions
from longstrand.inference.resumable import ResumableOutput, cut_into_parts
from longstrand.inference.writers import ColumnChunk, CsvSink, ParquetSink, Sink, ZarrSink, sink_for
from tests.part_toys import LAYOUT, SETTINGS, Row, ToyPrediction, in_child, predictor


def run(output: Path, *, num_rows: int = 10, settings: dict | None = None, **options: object) -> object:
    """Write all rows in parts of three."""
    sink = sink_for(output)
    with ResumableOutput.open(output, settings or SETTINGS, suffix=sink.suffix, **options) as parts:
        return parts.finished() or write_predictions(
            map(Row, range(num_rows)), predictor, parts, sink, LAYOUT, part_rows=3
        )


def block(first: int, lengths: list[int]) -> ColumnChunk:
    """Make ragged rows: base p of row i has the values (i, p, -p)."""
    values = [(first + i, p, -p) for i, length in enumerate(lengths) for p in range(length)]
    names = [f"r{first + i}" for i in range(len(lengths))]
    positions = np.array([p for length in lengths for p in range(length)], dtype=np.int64)
    table = np.array(values, dtype=np.float32).reshape(-1, 3)
    return ColumnChunk({"name": names}, table, ("a", "b", "c"), np.array(lengths), {"position": positions})


def written(sink: Sink, blocks: list[ColumnChunk], folder: Path, name: str) -> Path:
    parts = []
    for number, item in enumerate(blocks):
        parts.append(folder / f"p{number}{sink.suffix}")
        sink.write(item, parts[-1])
    sink.join(parts, folder / name)
    return folder / name


def test_parts_are_cut_by_rows_and_bases() -> None:
    rows = [Row(i, bases) for i, bases in enumerate([4, 4, 4, 100, 1, 9, 2])]
    numbers = [part for part, _ in cut_into_parts(rows, lambda row: row.num_bases, max_rows=3, max_bases=10)]
    assert numbers == [0, 0, 1, 2, 3, 3, 4]
    assert [part for part, _ in cut_into_parts(rows, lambda row: row.num_bases, max_rows=2, max_bases=10**6)] == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
    ]


def test_parts_of_wide_values_hold_fewer_bases() -> None:
    assert part_sizes(OutputColumns(("a",) * 768)) == (1024, 1 << 23)
    assert part_sizes(OutputColumns(("a",) * 1024, per="base"), 7) == (7, 1 << 16)


@pytest.mark.parametrize("name", ["o.csv", "o.tsv", "o.csv.gz", "o.tsv.gz"])
def test_text_table(tmp_path: Path, name: str) -> None:
    finished = run(tmp_path / name)
    raw = (tmp_path / name).read_bytes()
    text = (gzip.decompress(raw) if name.endswith("gz") else raw).decode()
    rows = list(csv.reader(text.splitlines(), delimiter="\t" if "tsv" in name else ","))
    assert rows[0] == ["index", "name", "prediction", "low", "high"]
    assert rows[1] == ["0", "r0", "low", "0", "0"]
    assert rows[8] == ["7", "r7", "low", "7", "1"]
    assert len(rows) == 11
    assert finished.num_rows == 10
    assert finished.counts == {
        "sequences": 10, "bases": 40, "tokens": 60, "unknown_letters": 1, "with_unknown_letters": 1,
        "truncated": 1, "empty": 0, "lower_case_letters": 0, "longest_bases": 4,
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, name + ".run.json"]


def test_missing_and_awkward_cells(tmp_path: Path) -> None:
    rows = {"name": ['a,"b"', None]}
    values = np.array([[np.nan, 0.1], [-1e-9, 123456789]], dtype=np.float32)
    path = written(CsvSink(), [ColumnChunk(rows, values, ("x", "y"))], tmp_path, "o.csv")
    assert list(csv.reader(path.open())) == [["name", "x", "y"], ['a,"b"', "", "0.1"], ["", "-1e-09", "1.234568e+08"]]


def test_ragged_rows_in_a_table_keep_empty_ones(tmp_path: Path) -> None:
    path = written(CsvSink(), [block(0, [2, 0]), block(2, [0]), block(3, [1])], tmp_path, "o.csv")
    assert list(csv.reader(path.open())) == [
        ["name", "position", "a", "b", "c"],
        ["r0", "0", "0", "0", "0"],
        ["r0", "1", "0", "1", "-1"],
        ["r1", "", "", "", ""],
        ["r2", "", "", "", ""],
        ["r3", "0", "3", "0", "0"],
    ]


def test_parquet(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    path = written(ParquetSink(), [block(0, [2, 0]), block(2, [0]), block(3, [1, 3])], tmp_path, "o.parquet")
    table = pl.read_parquet(path)
    assert table.columns == ["name", "position", "a", "b", "c"]
    assert table["name"].to_list() == ["r0", "r0", "r1", "r2", "r3", "r4", "r4", "r4"]
    assert table["position"].to_list() == [0, 1, None, None, 0, 0, 1, 2]
    assert table["c"].to_list() == [0, -1, None, None, 0, 0, -1, -2]
    assert table.schema["a"] == pl.Float32
    one = written(ParquetSink(), [block(0, [2])], tmp_path, "one.parquet")
    assert pl.read_parquet(one).height == 2


def test_parquet_keeps_the_order_of_many_parts(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    run(tmp_path / "o.parquet", num_rows=100)
    table = pl.read_parquet(tmp_path / "o.parquet")
    assert table["index"].to_list() == list(range(100))
    assert table["low"].to_list() == list(range(100))


def test_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    path = written(ZarrSink(), [block(0, [2, 0]), block(2, [0]), block(3, [1, 3])], tmp_path, "o.zarr")
    group = zarr.open_group(str(path), mode="r")
    assert group["offsets"][:].tolist() == [0, 2, 2, 2, 3, 6]
    assert group["values"].shape == (6, 3)
    assert group["values"][3:, 1].tolist() == [0, 1, 2]
    assert group["values"].dtype == np.float32
    assert group["position"][:].tolist() == [0, 1, 0, 0, 1, 2]
    assert group["name"][:].tolist() == ["r0", "r1", "r2", "r3", "r4"]
    assert group.attrs["value_names"] == ["a", "b", "c"]


def test_zarr_is_chunked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zarr = pytest.importorskip("zarr")
    monkeypatch.setattr("longstrand.inference.writers.CHUNK_BYTES", 7 * 3 * 4)
    blocks = [block(i, [i % 5, 3]) for i in range(0, 30, 2)]
    path = written(ZarrSink(), blocks, tmp_path, "o.zarr")
    group = zarr.open_group(str(path), mode="r")
    assert group["values"].chunks == (7, 3)
    np.testing.assert_array_equal(group["values"][:], np.concatenate([item.values for item in blocks]))


def test_zarr_of_one_vector_a_row(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    run(tmp_path / "o.zarr")
    group = zarr.open_group(str(tmp_path / "o.zarr"), mode="r")
    assert "offsets" not in group
    assert group["values"].shape == (10, 2)
    assert group["index"][:].tolist() == list(range(10))


def test_unknown_format() -> None:
    with pytest.raises(UsageError, match=r"output 'o.xlsx': unknown format; end the name with .csv"):
        sink_for(Path("o.xlsx"))


def test_the_same_command_is_done_already(tmp_path: Path) -> None:
    run(tmp_path / "o.csv")
    before = (tmp_path / "o.csv").stat().st_mtime_ns
    assert run(tmp_path / "o.csv").num_rows == 10
    assert (tmp_path / "o.csv").stat().st_mtime_ns == before
    assert not (tmp_path / "o.csv.parts").exists()


@pytest.mark.parametrize("bad_row", [0, 3])
def test_a_run_that_is_refused_before_its_first_part_leaves_no_folder(tmp_path: Path, bad_row: int) -> None:
    def refusing(rows: Iterator[Any]) -> Iterator[Any]:
        for prediction in predictor(rows):
            if prediction.index == bad_row:
                raise InputError("no such row")
            yield prediction

    opened = ResumableOutput.open(tmp_path / "o.csv", SETTINGS, suffix=".csv")
    with pytest.raises(InputError, match="no such row"), opened as parts:
        write_predictions(map(Row, range(6)), refusing, parts, CsvSink(), LAYOUT, part_rows=2)
    assert [path.name for path in tmp_path.iterdir()] == ([] if bad_row == 0 else ["o.csv.parts"])


def test_other_settings_refuse_a_finished_output(tmp_path: Path) -> None:
    run(tmp_path / "o.csv")
    with pytest.raises(
        ResumeError, match=r"o.csv: exists, and it was made with other settings \(strand: '\+' -> 'both'\)"
    ):
        run(tmp_path / "o.csv", settings={**SETTINGS, "strand": "both"})
    run(tmp_path / "o.csv", settings={**SETTINGS, "strand": "both"}, num_rows=4, overwrite=True)
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 5


def test_a_foreign_file_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text("mine")
    with pytest.raises(ResumeError, match="it was not made by this command; pass --overwrite"):
        run(tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == "mine"


def interrupted(output: Path, *, after: int, num_rows: int = 10) -> None:
    """Stop the model after some rows."""

    def stops(rows: Iterator[Row]) -> Iterator[ToyPrediction]:
        for prediction in predictor(rows):
            if prediction.index == after:
                raise KeyboardInterrupt
            yield prediction

    sink = sink_for(output)
    with ResumableOutput.open(output, SETTINGS, suffix=sink.suffix) as parts, pytest.raises(KeyboardInterrupt):
        write_predictions(map(Row, range(num_rows)), stops, parts, sink, LAYOUT, part_rows=3)


def test_resume_computes_only_what_is_missing(tmp_path: Path) -> None:
    run(tmp_path / "whole.csv")
    interrupted(tmp_path / "o.csv", after=7)
    assert not (tmp_path / "o.csv").exists()
    seen: list[int] = []

    def watched(rows: Iterator[Row]) -> Iterator[ToyPrediction]:
        for prediction in predictor(rows):
            seen.append(prediction.index)
            yield prediction

    sink = sink_for(tmp_path / "o.csv")
    steps: list[int] = []
    with ResumableOutput.open(tmp_path / "o.csv", SETTINGS, suffix=sink.suffix) as parts:
        write_predictions(map(Row, range(10)), watched, parts, sink, LAYOUT, part_rows=3, advance=steps.append)
    assert seen == [6, 7, 8, 9]
    assert sum(steps) == 10
    assert (tmp_path / "o.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    run_json = [json.loads((tmp_path / name).read_text()) for name in ("o.csv.run.json", "whole.csv.run.json")]
    assert run_json[0]["counts"] == run_json[1]["counts"]


def test_other_settings_refuse_unfinished_parts(tmp_path: Path) -> None:
    interrupted(tmp_path / "o.csv", after=7)
    other = {**SETTINGS, "layer": 2}
    with pytest.raises(ResumeError, match=r"unfinished output of other settings \(layer: -1 -> 2\); repeat them"):
        run(tmp_path / "o.csv", settings=other)
    assert run(tmp_path / "o.csv", settings=other, overwrite=True).num_rows == 10


def test_a_command_that_failed_before_its_first_part_does_not_bind_the_next(tmp_path: Path) -> None:
    interrupted(tmp_path / "o.csv", after=1)
    other = {**SETTINGS, "layer": 2}
    assert run(tmp_path / "o.csv", settings=other).num_rows == 10
    assert json.loads((tmp_path / "o.csv.run.json").read_text())["settings"]["layer"] == 2


def test_a_full_disk_in_the_words_of_polars_is_one_sentence(tmp_path: Path) -> None:
    def full(path: Path) -> None:
        raise RuntimeError("parquet: underlying IO error: No space left on device (os error 28)")

    with (
        ResumableOutput.open(tmp_path / "o.csv", SETTINGS, suffix=".csv") as parts,
        pytest.raises(
            InputError, match=r"o.csv: cannot be written \(No space left on device\); finished parts are kept"
        ),
    ):
        parts.commit(0, full, num_rows=1, counts={})


def test_a_damaged_part_is_made_again(tmp_path: Path) -> None:
    interrupted(tmp_path / "o.csv", after=9)
    folder = tmp_path / "o.csv.parts"
    (folder / "part-000001.csv").write_text("half")
    (folder / "part-000002.json").write_text("{")
    run(tmp_path / "o.csv")
    run(tmp_path / "whole.csv")
    assert (tmp_path / "o.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_leftover_folder_of_a_finished_output_is_swept(tmp_path: Path) -> None:
    run(tmp_path / "o.csv")
    (tmp_path / "o.csv.parts").mkdir()
    (tmp_path / "o.csv.parts" / "part-000000.csv").write_text("old")
    run(tmp_path / "o.csv")
    assert not (tmp_path / "o.csv.parts").exists()


def test_parts_without_a_manifest_do_not_count(tmp_path: Path) -> None:
    interrupted(tmp_path / "o.csv", after=7)
    (tmp_path / "o.csv.parts" / "manifest.json").unlink()
    run(tmp_path / "o.csv", settings={**SETTINGS, "layer": 2})
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 11


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the input has no rows, so there is nothing to write"):
        run(tmp_path / "o.csv", num_rows=0)


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="the folder of parts cannot be made"):
        run(tmp_path / "file" / "o.csv")


def test_two_writers(tmp_path: Path) -> None:
    code = f"""
        import time
        from longstrand.inference.resumable import ResumableOutput
        with ResumableOutput.open({str(tmp_path / "o.csv")!r}, {SETTINGS!r}, suffix=".csv"):
            print("open", flush=True)
            time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(ResumeError, match="another process is writing it"):
            run(tmp_path / "o.csv")
        process.kill()
    assert run(tmp_path / "o.csv").num_rows == 10


def test_ranks_share_the_parts_and_the_last_one_joins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "whole.csv", num_rows=20)
    done = []
    monkeypatch.setattr(parts_module, "world_size", lambda: 3)
    for number in (2, 0, 1):
        monkeypatch.setattr(parts_module, "rank", lambda number=number: number)
        done.append(run(tmp_path / "o.csv", num_rows=20))
    assert done[:2] == [None, None]
    assert done[2].num_rows == 20
    assert (tmp_path / "o.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert run(tmp_path / "o.csv", num_rows=20).num_rows == 20


def test_a_rank_that_comes_when_all_is_joined(tmp_path: Path) -> None:
    sink = sink_for(tmp_path / "o.csv")
    late = ResumableOutput(tmp_path / "o.csv", SETTINGS, sink.suffix)
    run(tmp_path / "o.csv")
    assert late.finish(4, sink.join).num_rows == 10


def test_full_disk_keeps_finished_parts(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    output = tmp_path / "o.csv"

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1600, 1600))
        with ResumableOutput.open(output, SETTINGS, suffix=".csv") as parts:
            try:
                write_predictions(map(Row, range(200)), predictor, parts, CsvSink(), LAYOUT, part_rows=50)
            except InputError as error:
                (tmp_path / "said").write_text(str(error))

    process = in_child(work)
    process.join()
    said = (tmp_path / "said").read_text()
    assert "o.csv: cannot be written (File too large); finished parts are kept, make room and repeat" in said
    assert process.exitcode == 0 and not output.exists()
    assert len(list((tmp_path / "o.csv.parts").glob("part-*.csv"))) == 4
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1600


@pytest.mark.parametrize("name", ["o.csv", "o.zarr"])
def test_kill_at_any_moment(tmp_path: Path, name: str) -> None:
    """Killed again and again; the output appears once, whole, and equal to the uninterrupted one."""
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    output, sink = tmp_path / name, sink_for(tmp_path / name)

    def slowly(rows: Iterator[Any]) -> Iterator[Any]:
        for prediction in predictor(rows):
            time.sleep(0.001)
            yield prediction

    def work() -> None:
        with ResumableOutput.open(output, SETTINGS, suffix=sink.suffix) as parts:
            if parts.finished() is None:
                write_predictions(map(Row, range(150)), slowly, parts, sink, LAYOUT, part_rows=10)

    random, stopped = np.random.default_rng(0), 0
    for _ in range(6):
        process = in_child(work)
        time.sleep(float(random.uniform(0.02, 0.15)))
        process.kill()
        process.join()
        stopped += process.exitcode == -signal.SIGKILL
        assert not output.exists() or (tmp_path / f"{name}.run.json").exists()
    assert stopped > 1
    process = in_child(work)
    process.join()
    assert process.exitcode == 0
    run(tmp_path / f"whole-{name}", num_rows=150)
    if name.endswith("csv"):
        assert output.read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
    else:
        import zarr

        pair = [zarr.open_group(str(path), mode="r") for path in (output, tmp_path / f"whole-{name}")]
        np.testing.assert_array_equal(pair[0]["values"][:], pair[1]["values"][:])
    assert not (tmp_path / f"{name}.parts").exists()
