"""What kind of problem a table poses, and its targets, on tables small enough to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longstrand.data.labelled import LabelledTable, label
from longstrand.data.labelled_files import RawTable
from longstrand.data.labelled_tokens import cut_pieces, inside_codes, is_bio, join_pieces, split_labels
from longstrand.data.targets import Problem, Task, canonical, infer_task, read_class_names
from longstrand.errors import InputError


def raw(labels: dict[str, list[str | None]], sequences: list[str] | None = None) -> RawTable:
    num_rows = len(next(iter(labels.values())))
    sequences = sequences or ["ACGTACG"] * num_rows
    return RawTable("t.csv", list(range(1, num_rows + 1)), sequences, labels)


def infer(table: RawTable, problem: Problem | None = None, class_names: tuple[str, ...] | None = None) -> Task:
    return infer_task(table, problem=problem, class_names=class_names)


def read(labels: dict[str, list[str | None]], sequences: list[str] | None = None, **options: object) -> LabelledTable:
    table = raw(labels, sequences)
    return label(table, infer(table, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "problem", "names"),
    [
        (["1", "0", "1", "0"], "single_label", ("0", "1")),
        (["1.0", "0.0", "1.0", "0.0"], "single_label", ("0", "1")),
        (["10", "2", "2", "10"], "single_label", ("2", "10")),
        (["b", "a", "b", "a"], "single_label", ("a", "b")),
        (["0.5", "1", "2", "3"], "regression", ("label",)),
        (["1", "2", "3", "4"], "regression", ("label",)),
        (["1;0;1", "0;1;1", "0;0;0", "1;1;1"], "multi_label", ("label_0", "label_1", "label_2")),
        (["1.5;0", "0;1", "0;0", "1;1"], "regression", ("label_0", "label_1")),
        (["a;b", "b", "-", "c;a"], "multi_label", ("a", "b", "c")),
        (["OOEEEIO", "OOOOOOO", "EEEEEEE", "IIIIIII"], "token", ("O", "E", "I")),
        (["0 0 1 1 2 2 0"] * 4, "token", ("0", "1", "2")),
    ],
)
def test_one_column(values: list[str | None], problem: str, names: tuple[str, ...]) -> None:
    task = infer(raw({"label": values}))
    assert (task.problem, task.names) == (problem, names)
    assert task.problem in task.in_words()
    assert "inferred" in task.reason


def test_many_numbers_that_do_not_come_back_are_no_classes() -> None:
    task = infer(raw({"label": [str(number) for number in range(60)]}))
    assert task.problem == "regression"


WELLS = [f"{row}E{column}" for row in range(1, 7) for column in range(1, 10)]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [str(number) for number in range(60)] * 3,
            "the 180 labels are 60 distinct whole numbers, so each comes back 3",
        ),
        (WELLS * 4, "labels such as '1E1' are names or numbers"),
        ([f"{number:03}" for number in range(80)], "labels such as '000' are names or numbers"),
        ([f"patient {number}" for number in range(12)], "the 12 labels are 12 different words, such as 'patient 0'"),
    ],
)
def test_labels_that_could_be_two_things_are_asked_about(labels: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        infer(raw({"label": labels}))
    assert message in str(error.value)
    assert "data.problem=single_label" in str(error.value)
    assert infer(raw({"label": labels}), problem="single_label").problem == "single_label"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a|b", "a", "b|c"], "a label such as 'a|b' may be several, joined by '|'"),
        (["a,b", "a", "b,c"], "joined by ','"),
        (["a / b", "a", "b / c"], "joined by '/'"),
        (["0,1,1", "1,0,0"], "a label such as '0,1,1' may be several, joined by ','"),
        (["0 1 1", "1 0 0"], "joined by ' '"),
        (["0.5 0.25", "1.5 2.5"], "joined by ' '"),
        (["1.1", "1.10", "1.2"], "labels such as '1.10' are names or numbers"),
        (["<0.01", "<0.01", "0.5"], "row 1: '<0.01' in column 'label' is no plain number; write digits"),
        (["0101010", "0101011", "010101"], "most labels have one value for each base, but not in rows 3, 6, 9"),
        (["0.5 0.1 0.5 0.5 0.5 0.5 0.5"], "every base has a number, such as 0.1, which is no class"),
    ],
)
def test_cells_of_several_labels_and_uneven_ones_are_asked_about(labels: list[str], message: str) -> None:
    """Ten rows of each; sequences have seven bases, or nine where that matters."""
    sites = ["ACGTACGTA"] * 10 * len(labels) if "most" in message else None
    cells = [cell + "01" if sites else cell for cell in labels]
    with pytest.raises(InputError) as error:
        infer(raw({"label": cells * 10}, sites))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "labels", [["B cell", "T cell"], ["CD4+", "CD4", "CD8"], ["+", "-"], ["2024-01-01", "x"], ["A/B", "B/C"]]
)
def test_names_with_a_mark_inside_are_classes(labels: list[str]) -> None:
    assert infer(raw({"label": labels * 10})).names == tuple(sorted(labels))


def test_names_with_an_underscore_are_no_numbers() -> None:
    task = infer(raw({"label": [f"{row}_{column}" for row in range(1, 7) for column in range(1, 10)] * 3}))
    assert (task.problem, len(task.names)) == ("single_label", 54)


@pytest.mark.parametrize("labels", [["0,143", "1,5", "2"] * 5, ["0,143;1,5", "2;3,1"] * 5])
def test_decimal_commas_are_refused(labels: list[str]) -> None:
    with pytest.raises(InputError, match=r"row 1: '0,143' in column 'label' .* decimal comma; .* \(0\.143\)"):
        infer(raw({"label": labels}))
    with pytest.raises(InputError, match=r"'0,143' in column 'a' .* decimal comma"):
        infer(raw({"a": ["0,143"] * 3, "b": ["1", "2", "3"]}))


@pytest.mark.parametrize("word", ["1.234,5", "1,234.5", "12 %", "<0.1", "−0.5", "1,5e-3", "1.000.000", "1 000"])
def test_numbers_that_people_write_are_no_classes(word: str) -> None:
    with pytest.raises(InputError, match=r"row 2: '.*' in column 'label' is (no plain|a) number"):
        infer(raw({"label": ["0.5", word, "2"] * 5}))
    assert infer(raw({"label": ["1.1.1.2", "1.1.1", "chr1", "5UTR"] * 5})).problem == "single_label"


def test_words_as_long_as_their_sequences() -> None:
    words, sites = ["promoter", "enhancer"] * 4, ["ACGTACGT"] * 8
    with pytest.raises(
        InputError, match=r"'promoter', has as many letters .*problem=single_label or data\.problem=token"
    ):
        infer(raw({"label": words}, sites))
    assert infer(raw({"label": words}, sites), problem="single_label").names == ("enhancer", "promoter")
    assert infer(raw({"label": ["EEIIOOOO", "OOEEIIOO"] * 4}, sites)).problem == "token"
    assert infer(raw({"label": ["0.143", "0.921", "0.555"]}, ["ACGTA"] * 3)).problem == "regression"


def test_several_columns() -> None:
    assert infer(raw({"a": ["0", "1"], "b": ["1", ""]})).problem == "multi_label"
    assert infer(raw({"a": ["0", "1"], "b": ["1", "7"]})).problem == "regression"
    with pytest.raises(InputError, match="several label columns must hold numbers, but one holds 'x'"):
        infer(raw({"a": ["0", "1"], "b": ["1", "x"]}))


def test_declared_problems() -> None:
    task = infer(raw({"label": ["1", "0", "1", "0"]}), "regression")
    assert (task.problem, task.names, task.reason) == ("regression", ("label",), "declared")
    assert infer(raw({"label": ["1", "0", "1", "0"]}), "multi_label").layout == "columns"
    assert infer(raw({"label": ["a", "b", "a", "b"]}), "multi_label").layout == "set"
    assert infer(raw({"label": ["1.5", "2.5", "1.5", "2.5"]}), "single_label").names == ("1.5", "2.5")
    with pytest.raises(InputError, match="one label column, not 2: a, b"):
        infer(raw({"a": ["0", "1"], "b": ["1", "0"]}), "single_label")


def test_targets_of_classes() -> None:
    table = read({"label": ["b", "a", "c", "a"]})
    assert table.targets.tolist() == [1, 0, 2, 0]
    assert table.targets.dtype == np.int64
    assert table.counts()["labels"] == {"a": 2, "b": 1, "c": 1}
    assert table.num_missing == 0


def test_targets_of_labels_with_missing_cells() -> None:
    table = read({"a": ["0", "1", ""], "b": ["1", "NaN", "0"]})
    np.testing.assert_array_equal(table.targets, np.array([[0, 1], [1, np.nan], [np.nan, 0]], dtype=np.float32))
    assert table.num_missing == 2
    assert table.counts()["labels"] == {"a": 1, "b": 1}
    vectors = read({"label": ["1;0", "0;", None]})
    np.testing.assert_array_equal(vectors.targets, np.array([[1, 0], [0, np.nan], [np.nan, np.nan]]))
    names = read({"label": ["x;y", "-", "", "y"]})
    np.testing.assert_array_equal(names.targets, np.array([[1, 1], [0, 0], [np.nan, np.nan], [0, 1]]))


def test_targets_of_numbers() -> None:
    table = read({"a": ["0.5", "2", "-1e2"], "b": ["7", "na", "3"]})
    np.testing.assert_allclose(table.targets, [[0.5, 7], [2, np.nan], [-100, 3]])
    assert table.counts()["labels"]["b"] == {"mean": 5.0, "sd": 2.0}


def test_targets_per_base() -> None:
    table = read({"label": ["OEE?", "", "EO"]}, ["ACGT", "TTT", "CC"])
    assert [labels.tolist() for labels in table.targets] == [[0, 1, 1, -100], [-100, -100, -100], [1, 0]]
    assert table.num_missing == 4
    assert table.counts()["labels"] == {"O": 2, "E": 3}
    lists = read({"label": ["B-x,I-x,O", "O|O|B-x"]}, ["ACG", "TTT"])
    assert lists.task.names == ("O", "B-x", "I-x")
    assert [labels.tolist() for labels in lists.targets] == [[1, 2, 0], [0, 0, 1]]


def test_class_names() -> None:
    table = raw({"label": ["0", "2", "0", "2"]})
    task = infer(table, class_names=("none", "weak", "strong"))
    assert task.names == ("none", "weak", "strong")
    assert label(table, task).targets.tolist() == [0, 2, 0, 2]
    named = raw({"label": ["weak", "none", "none", "weak"]})
    assert label(named, infer(named, class_names=("none", "weak", "strong"))).targets.tolist() == [1, 0, 0, 1]
    vectors = infer(raw({"label": ["1;0", "0;1"]}), class_names=("p", "q"))
    assert vectors.names == ("p", "q")
    with pytest.raises(InputError, match="3 class names were given for 2 outputs"):
        infer(raw({"label": ["1;0", "0;1"]}), class_names=("p", "q", "r"))
    with pytest.raises(InputError, match=r"label 'week' is not among the 2 class names \(did you mean 'weak'"):
        infer(raw({"label": ["week", "none", "none"]}), class_names=("none", "weak"))
    with pytest.raises(InputError, match="two classes are called 'a'"):
        infer(raw({"label": ["0", "1", "1"]}), class_names=("a", "a"))


def test_class_name_files(tmp_path: Path) -> None:
    plain, table, wrong = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.txt"
    plain.write_text("none\nweak\n\n")
    table.write_text("label,label_name\n1,weak\n0,none\n")
    wrong.write_text("label,label_name\n1,weak\n2,none\n")
    assert read_class_names(plain) == ("none", "weak")
    assert read_class_names(table) == ("none", "weak")
    with pytest.raises(InputError, match="numbers 0 to 1"):
        read_class_names(wrong)
    wrong.write_text("label,label_name\n0,none\n0,weak\n1,strong\n")
    with pytest.raises(InputError, match="numbers 0 to 2, one a row"):
        read_class_names(wrong)
    with pytest.raises(InputError, match="no such file"):
        read_class_names(tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("values", "problem", "message"),
    [
        (["a", "", "b", "nan"], None, "the label in column 'label' is missing in rows 2, 4"),
        (["a", "a", "a", "a"], None, "every label is 'a'; training needs at least two classes"),
        (["", "", "", ""], None, "hold no value"),
        (["x", "1", "2", "3"], "regression", "row 1: 'x' in column 'label' is not a number, as regression needs"),
        (["1", "2", "1", "0"], "multi_label", None),
        (["1;0", "1", "0;1", "0;0"], None, "row 2: column 'label' holds 1 values where the training table has 2"),
        (["EO", "OOEEOOE", "", ""], "token", "row 1: 7 bases but 2 labels"),
        (["O O E", "", "", ""], "token", "row 1: 7 bases but 3 labels"),
        (["???????", "???????"], "token", "no base has a label"),
        (["0.5", "", "inf", "1.5"], None, "row 3: the label 'inf' is no finite number while other labels are numbers"),
        (["0.5;1", "", "1.5;2,5"], None, "row 3: '2,5' in column 'label' is a number with a decimal comma"),
        (["1", "0", "unknown", "1"], None, None),
    ],
)
def test_bad_labels(values: list[str | None], problem: Problem | None, message: str | None) -> None:
    if message is None:
        read({"label": values}, problem=problem)
        return
    with pytest.raises(InputError) as error:
        read({"label": values}, problem=problem)
    assert message in str(error.value)


def test_a_multi_label_cell_must_be_binary() -> None:
    table = raw({"a": ["0", "1"], "b": ["1", "0"]})
    task = infer(table)
    with pytest.raises(InputError, match="row 2: '3' in column 'b' is not 0 or 1"):
        label(raw({"a": ["0", "1"], "b": ["1", "3"]}), task)
    with pytest.raises(InputError, match="the label column 'b' holds no value"):
        infer(raw({"a": ["0", "1"], "b": ["", ""]}))


def test_unseen_labels_in_another_split_are_refused() -> None:
    classes = infer(raw({"label": ["promoter", "enhancer", "promoter"]}))
    with pytest.raises(InputError, match=r"label 'promotor' \(rows 1, 3\) is not among .* \(did you mean 'promoter'"):
        label(raw({"label": ["promotor", "enhancer", "promotor"]}), classes)
    sets = infer(raw({"label": ["a;b", "b"]}))
    with pytest.raises(InputError, match=r"label 'z' \(row 2\)"):
        label(raw({"label": ["a", "z;a"]}), sets)
    bases = infer(raw({"label": ["OE", "EO"]}, ["AC", "GT"]))
    with pytest.raises(InputError, match="row 1: base label 'X' is not among"):
        label(raw({"label": ["OX"]}, ["AC"]), bases)
    with pytest.raises(InputError, match="this split has no row"):
        label(raw({"label": ["a", "b"]}).take([]), classes)


def test_small_pieces() -> None:
    assert canonical(" 3.00 ") == "3"
    assert canonical("3.5") == "3.5"
    assert split_labels("AB", 2) == ["A", "B"]
    assert split_labels("A B", 2) == ["A", "B"]
    assert split_labels("ABC", 2) is None
    assert is_bio(("O", "B-x", "I-x"))
    assert not is_bio(("O", "E"))
    assert inside_codes(["0", "1"], ("O", "B-x", "I-x")) == {"1": "2"}
    assert inside_codes(["O", "B-x"], ("O", "B-x", "I-x")) == {"B-x": "I-x"}
    assert join_pieces(["a", "a", "b"]) == [(0, 2), (2, 3)]
    with pytest.raises(ValueError, match="interrupted"):
        join_pieces(["a", "b", "a"])
    assert cut_pieces(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert cut_pieces(9, 8) == [(0, 9)]
    assert cut_pieces(3, 8) == [(0, 3)]
