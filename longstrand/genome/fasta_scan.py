"""Read a FASTA stream once, in blocks: check it and find where its records lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from longstrand.errors import InputError
from longstrand.genome.sequence import first_bad_letter, num_bad_letters

Gaps = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Contig:
    """Where one record lies in the file that is read.

    Attributes:
        length: bases.
        offset: byte of the first base.
        line_bases: bases of a full line, which ends in one more byte.
    """

    length: int
    offset: int
    line_bases: int


@dataclass(frozen=True)
class FastaIndex:
    """Result of one scan.

    Attributes:
        contigs: by name, in the order of the file.
        gaps: runs of ``N`` or ``n`` by name, sorted and half-open; int64 (runs, 2). Hard-masked genomes have millions.
        fingerprint: ``sha256:...`` of names and sequences, the same for plain, gzip and any line length.
    """

    contigs: dict[str, Contig]
    gaps: dict[str, Gaps]
    fingerprint: str


def scan_fasta(blocks: Iterable[bytes], path: Path, copy: IO[bytes] | None = None) -> FastaIndex | None:
    r"""Read a FASTA file once in blocks, check it and locate its records.

    Args:
        blocks: uncompressed UTF-8; with ``copy``, lines end in ``\n``.
        path: what errors name.
        copy: if given, receives a plain FASTA with one line per record, and the index describes that copy.

    Returns:
        None if the file cannot be read in place (without ``copy``): uneven lines, or a carriage return anywhere.

    Raises:
        InputError: no header at the start, an empty or duplicate record, or a letter that is no nucleotide.
    """
    scanner = _Scanner(path, copy)
    for block in blocks:
        if b"\r" in block:
            return None
        scanner.feed(block)
    index = scanner.finish()
    return index if scanner.is_even else None


class _Scanner:
    """State of one pass over a FASTA file, fed with blocks of any size."""

    def __init__(self, path: Path, copy: IO[bytes] | None) -> None:
        self.path = path
        self.copy = copy
        self.contigs: dict[str, Contig] = {}
        self.gaps: dict[str, Gaps] = {}
        self.header_lines: dict[str, int] = {}
        self.digest = hashlib.sha256()
        self.is_even = True
        self.record: _Record | None = None
        self.header: bytes | None = None
        self.position = 0
        self.line = 1
        self.at_line_start = True

    def feed(self, block: bytes) -> None:
        cursor = 0
        while cursor < len(block):
            if self.header is not None:
                end = block.find(b"\n", cursor) + 1 or len(block)
                self.header += block[cursor:end]
                if block[end - 1 : end] == b"\n":
                    self._begin_record(self.position + end)
            elif self.at_line_start and block[cursor : cursor + 1] == b">":
                self._end_record()
                self.header = b""
                end = cursor + 1
                self.at_line_start = False
            else:
                end = block.find(b"\n>", cursor) + 1 or len(block)
                self._body(block[cursor:end], self.position + cursor)
            cursor = end
        self.position += len(block)

    def finish(self) -> FastaIndex:
        if self.header is not None:
            self._begin_record(self.position)
        self._end_record()
        if not self.contigs:
            raise InputError(f"{self.path}: the file is empty; a FASTA file with at least one record is needed.")
        return FastaIndex(self.contigs, self.gaps, "sha256:" + self.digest.hexdigest())

    def _begin_record(self, offset: int) -> None:
        words = (self.header or b"").split()
        if not words:
            raise InputError(f"{self.path}:{self.line}: a FASTA header has no name after '>'.")
        name = words[0].decode("utf-8", "replace")
        if name in self.header_lines:
            raise InputError(
                f"{self.path}:{self.line}: record '{name}' occurs twice (first in line {self.header_lines[name]}); "
                "give every record its own name."
            )
        self.header_lines[name] = self.line
        if self.copy is not None:
            self.copy.write(b">" + words[0] + b"\n")
        self.record = _Record(name, offset)
        self.header = None
        self.line += 1
        self.at_line_start = True

    def _end_record(self) -> None:
        record = self.record
        if record is None:
            return
        if record.length == 0:
            line = self.header_lines[record.name]
            raise InputError(f"{self.path}:{line}: record '{record.name}' is empty; remove it or add its sequence.")
        self.digest.update(f"{record.name}\t{record.length}\t{record.digest.hexdigest()}\n".encode())
        self.gaps[record.name] = record.all_gaps()
        if self.copy is not None:
            start = self.copy.tell() - record.length
            self.contigs[record.name] = Contig(record.length, start, record.length)
            self.copy.write(b"\n")
        else:
            self.contigs[record.name] = record.contig()
            self.is_even = self.is_even and record.is_even()
        self.record = None

    def _body(self, text: bytes, offset: int) -> None:
        letters = text.replace(b"\n", b"")
        if self.record is None:
            if letters.strip():
                first = text.split(b"\n", 1)[0][:40].decode("utf-8", "replace").strip()
                raise InputError(
                    f"{self.path}:{self.line}: not a FASTA file: the line begins with {first!r}, not with '>'."
                )
        else:
            if num_bad_letters(letters):
                self._refuse_letter(text)
            self.record.add(text, letters, offset)
            if self.copy is not None:
                self.copy.write(letters)
        self.line += text.count(b"\n")
        self.at_line_start = text.endswith(b"\n")

    def _refuse_letter(self, text: bytes) -> None:
        masked = text.replace(b"\n", b"N")
        position = first_bad_letter(masked)
        name = self.record.name if self.record is not None else ""
        line = self.line + text.count(b"\n", 0, position)
        raise InputError(
            f"{self.path}:{line}: {chr(text[position])!r} in record '{name}' is no nucleotide letter; "
            "a genome may hold A, C, G, T, U, N and the IUPAC codes."
        )


class _Record:
    """Length, line geometry, digest and N runs of the record that is being read."""

    def __init__(self, name: str, offset: int) -> None:
        self.name = name
        self.offset = offset
        self.length = 0
        self.gaps: list[Gaps] = []
        self.digest = hashlib.sha256()
        self.line_start = offset
        self.end = offset
        self.line_width = 0
        self.saw_short_line = False
        self.uneven = False

    def add(self, text: bytes, letters: bytes, offset: int) -> None:
        self.digest.update(letters)
        self._add_gaps(find_gaps(letters, self.length))
        self.length += len(letters)
        self.end = offset + len(text)
        self._follow_lines(np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + offset)

    def _add_gaps(self, gaps: Gaps) -> None:
        if not len(gaps):
            return
        if self.gaps and self.gaps[-1][-1, 1] == gaps[0, 0]:
            self.gaps[-1][-1, 1] = gaps[0, 1]
            gaps = gaps[1:]
        if len(gaps):
            self.gaps.append(gaps)

    def all_gaps(self) -> Gaps:
        """Give all runs of ``N``; int64 (runs, 2)."""
        return np.concatenate(self.gaps) if self.gaps else np.empty((0, 2), np.int64)

    def _follow_lines(self, line_ends: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        if not len(line_ends):
            return
        widths = np.diff(line_ends, prepend=self.line_start - 1)
        self.line_start = int(line_ends[-1]) + 1
        self.line_width = self.line_width or int(widths[0])
        if self.saw_short_line or (widths[:-1] != self.line_width).any() or widths[-1] > self.line_width:
            self.uneven = True
        self.saw_short_line = bool(widths[-1] < self.line_width)

    def is_even(self) -> bool:
        """Say whether base ``i`` lies at ``offset + i + i // line_bases``."""
        line_bases = self.line_width - 1 if self.line_width else self.length
        if self.uneven or line_bases < 1:
            return False
        last_line = self.end - self.line_start
        if last_line and (self.saw_short_line or last_line > line_bases):
            return False
        num_lines = -(-self.length // line_bases)
        num_line_ends = num_lines if not last_line else num_lines - 1
        return self.end - self.offset == self.length + num_line_ends

    def contig(self) -> Contig:
        line_bases = self.line_width - 1 if self.line_width else self.length
        return Contig(self.length, self.offset, line_bases)


def find_gaps(letters: bytes, start: int = 0) -> Gaps:
    """Give the half-open runs of ``N`` or ``n``, counted from ``start``; int64 (runs, 2)."""
    if b"N" not in letters and b"n" not in letters:
        return np.empty((0, 2), np.int64)
    unknown = (np.frombuffer(letters, np.uint8) | 32) == ord("n")
    edges = np.flatnonzero(np.diff(unknown.view(np.int8), prepend=np.int8(0), append=np.int8(0)))
    return edges.reshape(-1, 2).astype(np.int64) + start
