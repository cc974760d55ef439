"""Text labels to numbers: what kind of problem a table poses, and the targets of each row."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from longstrand.data.bins import bin_targets
from longstrand.data.labelled_files import RawTable
from longstrand.data.labelled_tokens import SEPARATORS, UNLABELLED, split_labels
from longstrand.data.rows import detect_file, is_missing, show_rows
from longstrand.data.tables import TABLES, column_names, read_table
from longstrand.errors import InputError, nearest
from longstrand.genome.text import open_text, parse_number
from longstrand.runtime import IGNORED_LABEL

Problem = Literal["single_label", "multi_label", "regression", "token"]
Layout = Literal["one", "columns", "vector", "set"]
MAX_INTEGER_CLASSES = 50
FEWEST_ROWS = 10
"""With fewer labels nothing is said about their number of classes."""

NO_LABEL = "-"
_INTEGRAL = re.compile(r"[+-]?\d+\.0+")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d*,\d+\s*")
_ODD_NUMBER = re.compile(
    r"\s*[<>≤≥~]?\s*[+\-−]?(?=.*\d)(?:\d{1,3}(?:[.,' \u00a0\u202f]\d{3})+|\d*)(?:[.,]\d+)?(?:[eE][+\-−]?\d+)?\s*%?\s*"
)
"""Numbers as spreadsheets and people write them: ``0,5``, ``1.234,5``, ``12 %``, ``<0.1``, a printed minus."""
_LIKE_A_NAME = re.compile(r"[+-]?0\d+|\d+[eE]\d+")
"""Numbers that are names as often: ``007``, and ``1E2`` as the wells of a plate are called."""


@dataclass(frozen=True)
class Task:
    """What is to be learned; decided once, from the training table.

    Attributes:
        problem: ``single_label`` (one class a sequence), ``multi_label`` (any number of labels), ``regression`` (one or
            several numbers) or ``token`` (one class a base).
        names: classes, labels or targets, one an output of the model.
        columns: label columns of the table.
        layout: how a row holds its labels: ``one`` value; several ``columns``; a ``vector`` in one cell (``0;1;0``); a
            ``set`` of names in one cell (``enhancer;promoter``).
        codes: what the table writes for each class (equal to ``names`` unless class names were given).
        reason: one sentence on how the problem was found, for the notice.
        bin_bases: regression with one number for each bin of so many bases; None: one for each sequence.
    """

    problem: Problem
    names: tuple[str, ...]
    columns: tuple[str, ...]
    layout: Layout = "one"
    codes: tuple[str, ...] = ()
    reason: str = ""
    bin_bases: int | None = None

    @property
    def num_outputs(self) -> int:
        """Number of outputs of the model."""
        return len(self.names)

    def in_words(self) -> str:
        """Say in one sentence what will be learned and why."""
        shown = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")
        kind = {
            "single_label": f"one of {len(self.names)} classes a sequence",
            "multi_label": f"any of {len(self.names)} labels a sequence",
            "regression": f"{len(self.names)} number(s) a "
            + ("sequence" if self.bin_bases is None else f"bin of {self.bin_bases:,} bases"),
            "token": f"one of {len(self.names)} classes a base",
        }[self.problem]
        return f"problem: {self.problem}, {kind} ({shown}); {self.reason}"


def infer_task(table: RawTable, *, problem: Problem | None = None, class_names: Sequence[str] | None = None) -> Task:
    """Decide what kind of problem a training table poses.

    Several columns: all 0/1 is multi-label, numbers are regression. One column: one label a base is token-level; cells
    with ``;`` are multi-label (0/1 vectors or names) or regression (vectors of numbers); words are classes; integers
    with few distinct values are classes; other numbers are regression.

    Args:
        table: training rows; the lengths of sequences decide about token-level labels.
        problem: what the user declared; nothing is inferred then.
        class_names: names for the classes or outputs; labels that are numbers 0..K-1 are taken as their indices.

    Raises:
        InputError: the labels fit no problem or not the declared one, a label is missing in a single-label column, or
            there is only one class; a word or infinity stands among numbers; or the labels fit two problems equally
            well (numbered classes or quantities, words or one letter a base), or no class comes back in other rows:
            then ``problem`` decides.
    """
    reader, source = _LabelReader(table), table.source
    declared = problem is not None
    found, layout, reason = (problem, reader.layout(problem), "declared") if problem else reader.infer()
    if found == "single_label":
        names = reader.classes()
    elif found == "token":
        names = reader.token_classes()
    else:
        names = reader.outputs(layout)
    reader.refuse_empty(layout)
    codes = names
    if class_names is not None:
        names, codes = _named(names, tuple(class_names), found, source)
    if found in ("single_label", "token") and len(names) < 2:
        raise InputError(f"{source}: every label is '{names[0]}'; training needs at least two classes.")
    why = reason if declared else f"inferred: {reason}; declare problem=... to change that"
    return Task(found, tuple(names), tuple(table.labels), layout, tuple(codes), why)


def encode_targets(table: RawTable, task: Task) -> np.ndarray | list[np.ndarray]:
    """Turn text labels into numbers; shapes as in `LabelledTable.targets`.

    Raises:
        InputError: as `longstrand.data.labelled.label`.
    """
    if task.bin_bases is not None:
        return bin_targets(table, task.bin_bases)
    reader = _LabelReader(table)
    if task.problem == "token":
        return reader.token_indices(task.codes)
    if task.problem == "single_label":
        return reader.class_indices(task.codes)
    binary = task.problem == "multi_label"
    return reader.set_matrix(task.codes) if task.layout == "set" else reader.matrix(task.layout, task.names, binary)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names from a file: one name a line, or a table with columns ``label,label_name`` (any order).

    Raises:
        InputError: the file is missing or empty, or its labels are not 0..K-1.
    """
    if detect_file(path) in TABLES and {"label", "label_name"} <= set(column_names(path)):
        frame = read_table(path)
        pairs = dict(zip(frame["label"].to_list(), frame["label_name"].to_list()))
        wanted = [str(index) for index in range(frame.height)]
        if set(pairs) != set(wanted):
            raise InputError(f"{path}: the column 'label' should hold the numbers 0 to {frame.height - 1}, one a row.")
        return tuple(pairs[index] for index in wanted)
    with open_text(path) as lines:
        return tuple(line.strip() for line in lines if line.strip())


def canonical(text: str) -> str:
    """Strip a class label and write ``1.0`` as ``1`` (tables saved with floating-point labels)."""
    text = text.strip()
    return text.split(".")[0] if _INTEGRAL.fullmatch(text) else text


class _LabelReader:
    """The label columns of one table, with everything an error needs to say where."""

    def __init__(self, table: RawTable) -> None:
        self.labels, self.sequences, self.source, self.rows = table.labels, table.sequences, table.source, table.rows

    def only_values(self) -> list[str | None]:
        """Give the values of the one label column."""
        if len(self.labels) != 1:
            given = ", ".join(self.labels)
            raise InputError(f"{self.source}: this problem takes one label column, not {len(self.labels)}: {given}.")
        return next(iter(self.labels.values()))

    def present(self) -> list[str]:
        """Give all values that are not missing."""
        return [
            value for values in self.labels.values() for value in values if value is not None and not is_missing(value)
        ]

    def infer(self) -> tuple[Problem, Layout, str]:
        values = self.present()
        if not values:
            raise InputError(f"{self.source}: the label column(s) {', '.join(self.labels)} hold no value.")
        if len(self.labels) > 1:
            return self._infer_columns(values)
        uneven = self._uneven_rows()
        if not uneven and max(map(len, self.sequences)) > 1 and self._are_letters(values):
            return "token", "one", "every label has one value a base"
        self._refuse_uneven(values, uneven)
        self._refuse_commas()
        self._refuse_joined(values)
        cells = [cell for value in values for cell in value.split(";")]
        if any(";" in value for value in values):
            if all(_is_binary(cell) or is_missing(cell) for cell in cells):
                return "multi_label", "vector", "the labels are vectors of 0 and 1 joined by ';'"
            if all(_is_number(cell) or is_missing(cell) for cell in cells):
                return "regression", "vector", "the labels are numbers joined by ';'"
            self._refuse_stray(values)
            return "multi_label", "set", "the labels are names joined by ';'"
        if not all(_is_number(value) for value in values):
            self._refuse_stray(values)
            distinct = {canonical(value) for value in values}
            if len(values) >= FEWEST_ROWS and len(distinct) > len(values) / 2:
                raise self._ask(
                    f"the {len(values):,} labels are {len(distinct):,} different words, such as '{values[0]}'",
                    "name the column of the classes",
                    "single_label",
                )
            return "single_label", "one", "the labels are words"
        return self._infer_numbers(values)

    def _uneven_rows(self) -> list[int]:
        """List the rows whose label is present and has not one value a base."""
        cells = zip(self.rows, self.only_values(), map(len, self.sequences))
        present = [cell for cell in cells if not is_missing(cell[1])]
        return [row for row, value, length in present if value is not None and split_labels(value, length) is None]

    def token_parts(self) -> Iterator[list[str] | None]:
        """Cut every cell into one label a base (None where the cell is missing)."""
        for row, value, sequence in zip(self.rows, self.only_values(), self.sequences):
            parts = None if value is None or is_missing(value) else split_labels(value, len(sequence))
            if parts is None and value is not None and not is_missing(value):
                count = len(SEPARATORS.split(value.strip()))
                raise InputError(
                    f"{self.source}, row {row}: {len(sequence)} bases but "
                    f"{count if count > 1 else len(value.strip())} labels; a token-level label has one value a base."
                )
            yield parts

    def token_classes(self) -> tuple[str, ...]:
        """List the classes of per-base labels: numbers in order, ``O`` first, then by name with B- before I-."""
        found = {label for parts in self.token_parts() for label in parts or ()} - {UNLABELLED}
        if not found:
            raise InputError(f"{self.source}: no base has a label.")
        if all(re.fullmatch(r"\d+", name) for name in found):
            return tuple(sorted(found, key=int))
        inner = {name: name[2:] if name[:2] in ("B-", "I-") else name for name in found}
        return tuple(sorted(found, key=lambda name: (name != "O", inner[name], name)))

    def token_indices(self, codes: Sequence[str]) -> list[np.ndarray]:
        """Turn per-base labels into int16 (num_bases,); -100 where a base is ``?`` or the whole cell is missing."""
        index = {code: position for position, code in enumerate(codes)} | {UNLABELLED: IGNORED_LABEL}
        encoded = []
        for row, sequence, parts in zip(self.rows, self.sequences, self.token_parts()):
            strange = next((part for part in parts or () if part not in index), None)
            if strange is not None:
                raise InputError(
                    f"{self.source}, row {row}: base label '{strange}' is not among the classes of the training table"
                    f"{nearest(strange, codes)}: {', '.join(codes)}."
                )
            missing = [UNLABELLED] * len(sequence)
            encoded.append(np.array([index[part] for part in parts or missing], dtype=np.int16))
        return encoded

    def _ask(self, what: str, advice: str, *problems: Problem) -> InputError:
        """Make the error for labels that could be two things; it names what decides."""
        choices = " or ".join(f"data.problem={name}" for name in problems)
        column = next(iter(self.labels))
        return InputError(
            f"{self.source}: in column '{column}' {what}; {advice}, or declare {choices} (--problem on the command "
            "line; in 'benchmark build' problem=...)."
        )

    def _are_letters(self, values: list[str]) -> bool:
        """Ask whether words as long as their sequences are one letter a base; numbers such as 0.25 are not."""
        words = [value.strip() for value in values]
        if any(re.search(r"[\s;,|]", word) for word in words):
            items = {item for word in words for item in re.split(r"[\s;,|]+", word)} - {UNLABELLED}
            if not all(_is_number(item) for item in items) or all(float(item).is_integer() for item in items):
                return True
            what = f"every base has a number, such as {min(items)}, which is no class"
            raise self._ask(what, "numbers for bins need data.bin_bases", "token")
        if all(parse_number(word) is not None and not word.isdigit() for word in words):
            return False
        distinct = set(words)
        pairs = [first == second for word in distinct for first, second in itertools.pairwise(word)]
        letters = {letter for letter in "".join(words) if not letter.isdigit()}
        are_like_words = len(letters) > 4 and (len(letters) > 2 * len(distinct) or sum(pairs) < 0.3 * len(pairs))
        if len(words) >= 2 * len(distinct) and are_like_words:
            raise self._ask(
                f"every label, such as '{words[0]}', has as many letters as its sequence has bases",
                "say whether it is one word for the sequence, or one letter for each base",
                "single_label",
                "token",
            )
        return True

    def _refuse_uneven(self, values: list[str], uneven: list[int]) -> None:
        """Ask where most cells, but not all, have one label for each base of sequences of 8 or more."""
        decimals = any(_is_number(value) and not value.strip().isdigit() for value in values)
        if 0 < len(uneven) < len(values) / 2 and not decimals and max(map(len, self.sequences)) >= 8:
            what = f"most labels have one value for each base, but not in {show_rows(uneven)}"
            raise self._ask(what, "correct the number of values there", "single_label", "token")

    def _refuse_joined(self, values: list[str]) -> None:
        """Ask about cells that may be several labels or numbers, joined by another mark than ``;``."""
        distinct = {value.strip() for value in values}
        for mark in ",|/& ":
            joined = sorted(value for value in distinct if mark in value)
            parts = {part.strip() for value in joined for part in value.split(mark)}
            if joined and (all(map(_is_number, parts)) or (mark != " " and parts & distinct)):
                what = f"a label such as '{joined[0]}' may be several, joined by '{mark}'"
                raise self._ask(what, "write ';' between them if so", "single_label")

    def _no_numbers(self) -> Iterator[tuple[int, str, str]]:
        """Give row, column and text of all parts of cells that are no numbers."""
        for column, values in self.labels.items():
            for row, value in zip(self.rows, values):
                for cell in (value or "").split(";"):
                    if not is_missing(cell) and not _is_number(cell):
                        yield row, column, cell

    def _refuse_commas(self) -> None:
        """Refuse numbers with a decimal comma and the like (`_ODD_NUMBER`), which are words to every other rule."""
        odd = list(self._no_numbers())
        if not odd or not all(_ODD_NUMBER.fullmatch(cell) for _, _, cell in odd):
            return
        row, column, cell = odd[0]
        what = "no plain number; write digits and a decimal point"
        if _DECIMAL_COMMA.fullmatch(cell):
            what = f"a number with a decimal comma; write it with a point ({cell.strip().replace(',', '.')})"
        raise InputError(
            f"{self.source}, row {row}: '{cell}' in column '{column}' is {what}, in all rows, or declare "
            "problem=single_label if these are names."
        )

    def _infer_columns(self, values: list[str]) -> tuple[Problem, Layout, str]:
        self._refuse_commas()
        if all(_is_binary(value) for value in values):
            return "multi_label", "columns", "several label columns of 0 and 1"
        if all(_is_number(value) for value in values):
            return "regression", "columns", "several label columns of numbers"
        words = next(value for value in values if not _is_number(value))
        raise InputError(
            f"{self.source}: several label columns must hold numbers, but one holds '{words}'; name just one."
        )

    def _refuse_stray(self, values: list[str]) -> None:
        """Refuse words among numbers that cannot be classes: without them it would be regression."""
        cells = [cell for value in values for cell in value.split(";")]
        numbers = [float(cell) for cell in cells if _is_number(cell)]
        if len(set(numbers)) <= MAX_INTEGER_CLASSES and all(number.is_integer() for number in numbers):
            return
        for row, _, cell in self._no_numbers():
            raise InputError(
                f"{self.source}, row {row}: the label '{cell}' is no finite number while other labels are "
                "numbers; correct it or leave it empty, or declare problem=single_label if it is a class."
            )

    def _infer_numbers(self, values: list[str]) -> tuple[Problem, Layout, str]:
        distinct = {float(value) for value in values}
        integral = all(value == int(value) for value in distinct)
        if integral and len(distinct) <= MAX_INTEGER_CLASSES and len(distinct) <= max(2, len(values) // 2):
            return "single_label", "one", f"the labels are {len(distinct)} distinct whole numbers"
        like_names = next((value for value in values if _LIKE_A_NAME.fullmatch(value.strip())), None)
        texts = {value.strip() for value in values}
        version = next((text for text in texts if re.search(r"\.\d+0$", text) and text[:-1] in texts), None)
        like_names = version or like_names
        if version or (like_names and all(_LIKE_A_NAME.fullmatch(text) or text.isdigit() for text in texts)):
            raise self._ask(
                f"labels such as '{like_names}' are names or numbers", "say which", "single_label", "regression"
            )
        if integral and len(distinct) <= len(values) / 2:
            raise self._ask(
                f"the {len(values):,} labels are {len(distinct):,} distinct whole numbers, so each comes back "
                f"{len(values) / len(distinct):.0f} times",
                "say whether they number classes or are quantities",
                "single_label",
                "regression",
            )
        return "regression", "columns", f"the labels are numbers with {len(distinct):,} distinct values"

    def layout(self, problem: Problem) -> Layout:
        """Find how a declared problem is written."""
        if problem in ("single_label", "token"):
            self.only_values()
            return "one"
        if len(self.labels) > 1:
            return "columns"
        values = self.present()
        cells = [cell for value in values for cell in value.split(";")]
        if problem == "multi_label" and not all(_is_binary(cell) or is_missing(cell) for cell in cells):
            return "set"
        return "vector" if any(";" in value for value in values) else "columns"

    def refuse_empty(self, layout: Layout) -> None:
        """Refuse a column of which the training table has no value at all."""
        for name, values in self.labels.items():
            if layout == "columns" and all(is_missing(value) for value in values):
                raise InputError(f"{self.source}: the label column '{name}' holds no value; leave it out.")

    def classes(self) -> tuple[str, ...]:
        self._refuse_missing()
        distinct = {canonical(value) for value in self.only_values() if value is not None}
        numeric = all(re.fullmatch(r"[+-]?\d+", name) for name in distinct)
        return tuple(sorted(distinct, key=int) if numeric else sorted(distinct))

    def class_indices(self, codes: Sequence[str]) -> np.ndarray:
        self._refuse_missing()
        index = {code: position for position, code in enumerate(codes)}
        values = [canonical(value) for value in self.only_values() if value is not None]
        unseen = [position for position, value in enumerate(values) if value not in index]
        if unseen:
            raise self._unseen(unseen, values[unseen[0]], codes)
        return np.array([index[value] for value in values], dtype=np.int64)

    def outputs(self, layout: Layout) -> tuple[str, ...]:
        if layout == "columns":
            return tuple(self.labels)
        column = next(iter(self.labels))
        if layout == "set":
            names = {name.strip() for value in self.present() for name in value.split(";")} - {NO_LABEL, ""}
            return tuple(sorted(names))
        return tuple(f"{column}_{number}" for number in range(len(self.present()[0].split(";"))))

    def matrix(self, layout: Layout, names: Sequence[str], binary: bool) -> np.ndarray:
        """Read numbers, float32 (n, outputs), from columns or from a vector in one cell; NaN where missing."""
        column = next(iter(self.labels))
        matrix = np.full((len(self.sequences), len(names)), np.nan, dtype=np.float32)
        for position, values in enumerate(zip(*self.labels.values())):
            cells, columns = list(values), list(self.labels)
            if layout == "vector" and not is_missing(values[0]):
                cells, columns = str(values[0]).split(";"), [column] * len(names)
                if len(cells) != len(names):
                    raise InputError(
                        f"{self.source}, row {self.rows[position]}: column '{column}' holds {len(cells)} values "
                        f"where the training table has {len(names)}."
                    )
            if layout == "columns" or not is_missing(values[0]):
                matrix[position] = [self._number(cell, binary, position, name) for cell, name in zip(cells, columns)]
        return matrix

    def set_matrix(self, codes: Sequence[str]) -> np.ndarray:
        index = {code: position for position, code in enumerate(codes)}
        matrix = np.zeros((len(self.sequences), len(codes)), dtype=np.float32)
        for position, value in enumerate(self.only_values()):
            if value is None or is_missing(value):
                matrix[position] = np.nan
                continue
            for name in (part.strip() for part in value.split(";")):
                if name in index:
                    matrix[position, index[name]] = 1.0
                elif name not in (NO_LABEL, ""):
                    raise self._unseen([position], name, codes)
        return matrix

    def _number(self, value: str | None, binary: bool, position: int, column: str) -> float:
        if value is None or is_missing(value):
            return math.nan
        suits: Callable[[str], bool] = _is_binary if binary else _is_number
        if not suits(value):
            need = "0 or 1, as a multi-label problem needs" if binary else "a number, as regression needs"
            hint = "; write a decimal point" if _DECIMAL_COMMA.fullmatch(value) else ""
            raise InputError(
                f"{self.source}, row {self.rows[position]}: '{value}' in column '{column}' is not {need}{hint}."
            )
        return float(value)

    def _refuse_missing(self) -> None:
        missing = [self.rows[position] for position, value in enumerate(self.only_values()) if is_missing(value)]
        if missing:
            column = next(iter(self.labels))
            raise InputError(
                f"{self.source}: the label in column '{column}' is missing in {show_rows(missing)}; fill it or delete "
                "the rows (only multi-label, regression and token problems may have missing labels)."
            )

    def _unseen(self, positions: list[int], value: str, codes: Sequence[str]) -> InputError:
        rows = show_rows([self.rows[position] for position in positions])
        known = ", ".join(codes[:20]) + (", ..." if len(codes) > 20 else "")
        return InputError(
            f"{self.source}: label '{value}' ({rows}) is not among the classes of the training table"
            f"{nearest(value, codes)}: {known}."
        )


def _named(
    names: tuple[str, ...], given: tuple[str, ...], problem: Problem, source: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Match declared class names with what the table holds: ``(names, codes)``."""
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{source}: two classes are called '{twice}'; give each its own name.")
    if problem in ("single_label", "token"):
        numbers = tuple(str(index) for index in range(len(given)))
        for codes in (given, numbers):
            if set(names) <= set(codes):
                return given, codes
        strange = next(name for name in names if name not in given)
        raise InputError(
            f"{source}: label '{strange}' is not among the {len(given)} class names{nearest(strange, given)}: "
            f"{', '.join(given[:20])}{', ...' if len(given) > 20 else ''}."
        )
    if len(given) != len(names):
        raise InputError(f"{source}: {len(given)} class names were given for {len(names)} outputs.")
    return given, names


def _is_binary(text: str) -> bool:
    return text.strip() in ("0", "1", "0.0", "1.0")


def _is_number(text: str) -> bool:
    return parse_number(text) is not None
