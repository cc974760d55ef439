"""Labels a base: strings of one letter a base, lists of one label a base, and tables of labelled pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence

from longstrand.errors import InputError

UNLABELLED = "?"
"""A base without a label in a label string or list."""

SEPARATORS = re.compile(r"[\s;,|]+")
_LIST = re.compile(r"(?:(?:np\.)?array|tensor)?\(?\[(.*)\](?:, dtype=[\w.']+)?\)?|\((.*,.*)\)", re.DOTALL)
_ITEM = re.compile(r"""'([^']*)'|"([^"]*)"|([^\s,;'"]+)""")


def plain_list(value: str | None) -> str | None:
    """Write a list as Python, pandas, NumPy and JSON print it (``[0, 1]``, ``['a' 'b']``) as ``0;1``; other text stays.

    An empty list becomes ``-``: no label at all.

    Raises:
        ValueError: there is a list in the list.
    """
    match = _LIST.fullmatch(value.strip()) if value else None
    if match is None:
        return value
    inner = match[1] or match[2] or ""
    if re.search(r"[\[\](){}]", inner):
        raise ValueError("a list in a list")
    items = [word or other or plain for word, other, plain in _ITEM.findall(inner)]
    return ";".join({"True": "1", "False": "0"}.get(item, item) for item in items) or "-"


def plain_lists(values: Sequence[str | None], source: object, rows: Sequence[int]) -> list[str | None]:
    """Apply `plain_list` to the cells of a label column.

    Raises:
        InputError: a cell holds a list in a list; its row is named.
    """
    plain = []
    for row, value in zip(rows, values):
        try:
            plain.append(plain_list(value))
        except ValueError:
            raise InputError(
                f"{source}, row {row}: a list in a list is no label; write one value for each base."
            ) from None
    return plain


def split_labels(value: str, num_bases: int) -> list[str] | None:
    """Cut one cell into one label a base, or give None if it does not have ``num_bases`` of them.

    ``EEEIII`` is one letter a base; ``B-CDS I-CDS O`` is a list separated by spaces, ``;``, ``,`` or ``|``.
    """
    text = value.strip()
    if len(text) == num_bases and not SEPARATORS.search(text):
        return list(text)
    parts = SEPARATORS.split(text)
    return parts if len(parts) == num_bases else None


def is_bio(names: Sequence[str]) -> bool:
    """Say whether the classes follow the begin/inside/outside scheme (some ``B-x`` with its ``I-x``)."""
    return any(name.startswith("B-") and f"I-{name[2:]}" in names for name in names)


def spread_piece(code: str, num_bases: int, inside: dict[str, str]) -> list[str]:
    """Repeat the label of a piece over its bases; after the first base a ``B-x`` continues as ``I-x``."""
    return [code] + [inside.get(code, code)] * (num_bases - 1)


def inside_codes(codes: Sequence[str], class_names: Sequence[str] | None) -> dict[str, str]:
    """Map the code of every ``B-x`` class to the code of ``I-x``.

    ``codes`` are what the table holds; with ``class_names``, codes that are numbers are indices into them.
    """
    if class_names is not None and not set(codes) <= set(class_names):
        position = {name: str(number) for number, name in enumerate(class_names)}
    else:
        position = {code: code for code in codes}
        if class_names is not None:
            position |= {name: name for name in class_names}
    return {
        position[name]: position[f"I-{name[2:]}"]
        for name in position
        if name.startswith("B-") and f"I-{name[2:]}" in position
    }


def cut_pieces(length: int, num_bases: int) -> list[tuple[int, int]]:
    """Cut a sequence into pieces of ``num_bases``, the last one shorter: ``[(start, end), ...]``.

    A last piece of less than a quarter is joined to the one before, which is then longer by that much.
    """
    starts = list(range(0, max(length, 1), num_bases))
    if len(starts) > 1 and length - starts[-1] < num_bases / 4:
        starts.pop()
    return list(zip(starts, [*starts[1:], length]))


def join_pieces(groups: Sequence[str]) -> list[tuple[int, int]]:
    """Find the runs of equal group names: ``[(first, past the last), ...]`` in order.

    Raises:
        ValueError: a group comes back after another one; ``args[1]`` is the position of the offending row.
    """
    runs: list[tuple[int, int]] = []
    seen: set[str] = set()
    start = 0
    for position in range(1, len(groups) + 1):
        if position == len(groups) or groups[position] != groups[start]:
            if groups[start] in seen:
                raise ValueError("a group is interrupted", start)
            seen.add(groups[start])
            runs.append((start, position))
            start = position
    return runs
