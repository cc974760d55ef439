"""Tasks as values, built tasks on disk, and everything that can be wrong with either."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from longstrand.benchmarks.tasks import build as building
from longstrand.benchmarks.tasks.build import build_task, check_labels, content_sum, resolve_options, write_task
from longstrand.benchmarks.tasks.task import BenchmarkTask, Option, SourceFile, TaskData, find_built, load_task_data
from longstrand.errors import InputError, UsageError
from tests.benchmarks.toys import dna, plain_task, rows, write_csv

SEQUENCES = dna(12, 40)


def tables(**changes: Any) -> dict[str, Any]:
    parts = {"train": (0, 6), "valid": (6, 9), "test": (9, 12)}
    made = {
        name: rows(SEQUENCES[start:end], [n % 2 for n in range(start, end)]) for name, (start, end) in parts.items()
    }
    return made | changes


def toy_task(**changes: Any) -> BenchmarkTask:
    def build(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
        return write_task(task, output, tables(), options, sources=[sources / "data.csv"])

    files = (SourceFile("{file}", "the toy archive"),)
    options = {"file": Option("data.csv", "the table"), "any_version": Option(False, "accept others")}
    return plain_task(**{"build": build, "files": files, "options": options, **changes})


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    write_csv(tmp_path / "in" / "data.csv", SEQUENCES, [0] * 12)
    return tmp_path / "in"


def test_built_and_read_back(tmp_path: Path, sources: Path) -> None:
    said: list[str] = []
    published = {"model": {"value": 0.5, "metric": "mcc", "source": "a paper", "protocol": "five folds"}}
    data = build_task(toy_task(published=published), sources, tmp_path / "out", notice=said.append)
    again = load_task_data(tmp_path / "out" / "toy" / "task")
    assert again == data and again.facts["published"] == published
    assert (again.problem, again.metric, again.class_names) == ("single_label", "mcc", ("0", "1"))
    loaded = again.load()
    assert loaded["test"].sequences == SEQUENCES[9:] and loaded["test"].targets.tolist() == [1, 0, 1]
    assert again.data_settings()["problem"] == "single_label"
    assert again.facts["sources"]["data.csv"].startswith("sha256:")
    assert again.sanity.is_file() and said[0].startswith("toy/task: train: 6 rows of 40 bases")
    assert [found.id for found in find_built(tmp_path)] == ["toy/task"]


def test_fingerprint_is_that_of_the_rows(tmp_path: Path, sources: Path) -> None:
    first = build_task(toy_task(), sources, tmp_path / "a")
    second = build_task(toy_task(id="toy/other"), sources, tmp_path / "b")
    assert first.fingerprint == second.fingerprint
    changed = write_task(toy_task(), _new(tmp_path / "c"), tables(test=rows(SEQUENCES[9:], [0, 1, 0])), {})
    assert changed.fingerprint != first.fingerprint


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_metric_that_the_labels_do_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"the metric 'mcc' is undefined for regression labels; defined are: pearson"):
        plain_task(problem="regression", metric="mcc")
    with pytest.raises(UsageError, match=r"did you mean 'pearson'"):
        plain_task(problem="regression", metric="pearsson")


def test_strict_refuses_and_removes(tmp_path: Path, sources: Path) -> None:
    def build(task: BenchmarkTask, _: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
        return write_task(task, output, tables(test=rows(SEQUENCES[:3], [0, 1, 0])), options)

    with pytest.raises(InputError, match=r"refused \(--strict\): 3 of 3 test rows \(100.0%\) are also train rows"):
        build_task(toy_task(build=build), sources, tmp_path / "out", strict=True)
    assert not (tmp_path / "out" / "toy" / "task").exists()
    assert build_task(toy_task(build=build), sources, tmp_path / "out").id == "toy/task"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fil": "x"}, "no option 'fil' .did you mean 'file'"),
        ({"any_version": "perhaps"}, "option 'any_version' is yes or no, got 'perhaps'"),
        ({"count": "many"}, "option 'count' is a whole number, got 'many'"),
        ({"share": "many"}, "option 'share' is a number, got 'many'"),
    ],
)
def test_options_that_are_refused(given: dict[str, str], message: str) -> None:
    options = {"count": Option(3, "a count"), "share": Option(0.5, "a share")}
    with pytest.raises(UsageError, match=message):
        resolve_options(toy_task(options=toy_task().options | options), given)


def test_options_are_read_as_their_kind() -> None:
    options = {"n": Option(3, "n"), "x": Option(0.5, "x"), "yes": Option(False, "b"), "words": Option((), "w")}
    given = {"n": "4", "x": "0.25", "yes": "yes", "words": "a, b"}
    assert resolve_options(plain_task(options=options), given) == {"n": 4, "x": 0.25, "yes": True, "words": ("a", "b")}
    assert resolve_options(plain_task(options=options), {"n": 5})["n"] == 5


def test_missing_files_are_named_with_where_they_are_published(tmp_path: Path, sources: Path) -> None:
    task = toy_task(files=(SourceFile("a.csv", "the toy archive"), SourceFile("b.csv", "the toy archive")))
    with pytest.raises(InputError, match=r"task 'toy/task' lacks a.csv, b.csv; published as the toy archive\."):
        build_task(task, sources, tmp_path / "out")
    with pytest.raises(InputError, match=r"no such folder; --source is the folder that holds"):
        build_task(task, tmp_path / "nowhere", tmp_path / "out")


def test_check_sums(tmp_path: Path, sources: Path) -> None:
    right = content_sum(sources / "data.csv")
    task = toy_task(files=(SourceFile("data.csv", "the toy archive", right),))
    build_task(task, sources, tmp_path / "out")
    packed = sources / "data.csv.gz"
    packed.write_bytes(gzip.compress((sources / "data.csv").read_bytes()))
    assert content_sum(packed) == right
    (sources / "data.csv").write_text("something else")
    with pytest.raises(InputError, match=f"not the published file of task 'toy/task' .*published {right}"):
        build_task(task, sources, tmp_path / "out")
    assert build_task(task, sources, tmp_path / "out", options={"any_version": "yes"}).id == "toy/task"


def test_a_damaged_gzip_file_is_named(tmp_path: Path, sources: Path) -> None:
    path = sources / "data.csv"
    path.write_bytes(gzip.compress(path.read_bytes())[:-9])
    with pytest.raises(InputError, match=r"data.csv: the gzip file is truncated or damaged"):
        build_task(toy_task(files=(SourceFile("data.csv", "x", "0" * 64),)), sources, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": rows(SEQUENCES[9:], [0, 0, 0])}, "in the test split of task 'toy/task', class '1' has no row"),
        ({"test": rows(SEQUENCES[9:], [0, 1, 2])}, "label '2' .row 3. is not among the classes of the training table"),
        ({"valid": rows([], [])}, "the valid split has no row"),
    ],
)
def test_labels_that_cannot_be_measured(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_labels(plain_task(), tables(**change))


def test_a_target_that_does_not_vary_has_no_correlation() -> None:
    values = {
        name: rows(table.sequences, [float(n) / 3 for n in range(len(table))]) for name, table in tables().items()
    }
    task = plain_task(problem="regression", metric="pearson")
    check_labels(task, values)
    values["test"] = rows(SEQUENCES[9:], ["0.5"] * 3)
    with pytest.raises(InputError, match=r"all values of 'label' are the same, so pearson is undefined"):
        check_labels(task, values)


def test_a_label_without_positives_is_allowed_among_others_only() -> None:
    task = plain_task(problem="multi_label", metric="mean_roc_auc")
    some = {name: rows(table.sequences, ["0;1", "0;0", "0;1"] * (len(table) // 3)) for name, table in tables().items()}
    check_labels(task, some)
    none = some | {"test": rows(SEQUENCES[9:], ["0;0"] * 3)}
    with pytest.raises(InputError, match=r"so mean_roc_auc is undefined"):
        check_labels(task, none)


def test_folders_that_are_no_built_task(tmp_path: Path, sources: Path) -> None:
    with pytest.raises(InputError, match=r"not a built task .no task.json."):
        load_task_data(tmp_path)
    with pytest.raises(InputError, match=r"holds no built task"):
        find_built(tmp_path)
    (tmp_path / "task.json").write_text("[]")
    with pytest.raises(InputError, match=r"not the description of a built task"):
        load_task_data(tmp_path)
    folder = build_task(toy_task(), sources, tmp_path / "out").folder
    facts = json.loads((folder / "task.json").read_text())
    (folder / "task.json").write_text(json.dumps(facts | {"version": 99}))
    with pytest.raises(InputError, match=r"format version 99, this program reads up to 1"):
        load_task_data(folder)
    (folder / "task.json").write_text(json.dumps({name: facts[name] for name in facts if name not in ("id", "kind")}))
    with pytest.raises(InputError, match=r"task.json: lacks id, kind; build the task again"):
        load_task_data(folder)
    (folder / "task.json").write_text(json.dumps(facts))
    shutil.copytree(folder, tmp_path / "out" / "copy")
    with pytest.raises(InputError, match=r"the task 'toy/task' is there twice, in copy and toy/task; remove one"):
        find_built(tmp_path / "out")
    pl.DataFrame({"sequence": ["ACGT"], "label": ["0"]}).write_parquet(folder / "test.parquet")
    with pytest.raises(InputError, match=r"changed since it was built"):
        load_task_data(folder)
    assert load_task_data(folder, check=False).id == "toy/task"
    (folder / "test.parquet").unlink()
    with pytest.raises(InputError, match=r"the test table of task 'toy/task' is missing"):
        load_task_data(folder)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
    with pytest.raises(InputError, match=r"t.parquet: cannot be written \(No space left on device\)"):
        building.write_rows(tmp_path / "t.parquet", tables()["test"])


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks data.csv; published as the toy archive"):
        building.source_paths(toy_task(), tmp_path, {"file": "data.csv"})
