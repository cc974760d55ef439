"""Readers of published files that no other module reads: FASTA with whole titles, tables without a header."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from longstrand.errors import InputError
from longstrand.genome.gzip_copy import open_packed


def fasta_entries(path: Path) -> Iterator[tuple[str, str]]:
    """Give title and sequence of every entry, whatever the file is called.

    Raises:
        InputError: the file is missing, not FASTA, or holds no entry.
    """
    title: str | None = None
    lines: list[str] = []
    for line in text_lines(path):
        if line.startswith(">"):
            if title is not None:
                yield title, "".join(lines)
            title, lines = line[1:].strip(), []
        elif title is not None:
            lines.append(line.strip())
        elif line.strip():
            raise InputError(f"{path}: not FASTA, the first line does not start with '>'.")
    if title is None:
        raise InputError(f"{path}: the file holds no sequence.")
    yield title, "".join(lines)


def headless_rows(path: Path, num_labels: int) -> Iterator[tuple[str, str]]:
    """Give sequence and labels (joined by commas) of every row of ``SEQUENCE,label,label,...`` without a header.

    Raises:
        InputError: the file is missing or empty, or a row has another number of labels; the row is named.
    """
    number = 0
    for number, line in enumerate(text_lines(path), 1):
        sequence, _, rest = line.rstrip("\r\n").partition(",")
        count = rest.count(",") + 1 if rest else 0
        if count != num_labels:
            raise InputError(
                f"{path}, row {number}: {count} labels after the sequence where the task has {num_labels}."
            )
        yield sequence, rest
    if not number:
        raise InputError(f"{path}: the file is empty.")


def text_lines(path: Path) -> Iterator[str]:
    """Give the lines of a text file, plain or gzip.

    Raises:
        InputError: the file is missing, damaged or not text.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file.")
    with open_packed(Path(path)) as stream:
        try:
            yield from io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        except UnicodeDecodeError:
            raise InputError(f"{path}: not a text file in UTF-8.") from None
