"""Read a FASTA stream once, in blocks: check it and find where its records lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from longstrand.errors import InputError
from longstrand.genome.sequence import first_bad_letter, num_bad_letters

Gaps = np.ndarray[Any, np.dtype[np.int64]]


class Contig(NamedTuple):
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
        path: the file that bases are read from: the genome itself or its copy in the cache.
        contigs: by name, in the order of the file.
        gaps: runs of ``N`` or ``n`` by name, sorted and half-open; int64 (runs, 2). Hard-masked genomes have millions.
        fingerprint: ``sha256:...`` of names and sequences, the same for plain, gzip and any line length.
        descriptions: what follows the names in the header lines, where there is something.
    """

    path: Path
    contigs: dict[str, Contig]
    gaps: dict[str, Gaps]
    fingerprint: str
    descriptions: dict[str, str]


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
        self.descriptions: dict[str, str] = {}
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
                self._body(block[cursor:end])
            cursor = end
        self.position += len(block)

    def finish(self) -> FastaIndex:
        if self.header is not None:
            self._begin_record(self.position)
        self._end_record()
        if not self.contigs:
            raise InputError(f"{self.path}: the file is empty; a FASTA file with at least one record is needed.")
        fingerprint = "sha256:" + self.digest.hexdigest()
        return FastaIndex(self.path, self.contigs, self.gaps, fingerprint, self.descriptions)

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
        if len(words) > 1:
            self.descriptions[name] = b" ".join(words[1:]).decode("utf-8", "replace")
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
        contig = record.contig()
        if self.copy is not None:
            contig = Contig(record.length, self.copy.tell() - record.length, record.length)
            self.copy.write(b"\n")
        self.is_even = self.is_even and contig is not None
        self.contigs[record.name] = contig or Contig(record.length, record.offset, 0)
        self.record = None

    def _body(self, text: bytes) -> None:
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
            self.record.add(text, letters)
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
    """Length, line ends, digest and N runs of the record that is being read; places count from its first base."""

    def __init__(self, name: str, offset: int) -> None:
        self.name, self.offset = name, offset
        self.length = self.size = self.num_ends = self.line_width = self.last_end = 0
        self.first_odd: int | None = None
        self.gaps: list[Gaps] = [np.empty((0, 2), np.int64)]
        self.digest = hashlib.sha256()

    def add(self, text: bytes, letters: bytes) -> None:
        self.digest.update(letters)
        self.gaps.append(find_gaps(letters, self.length))
        self.length += len(letters)
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + self.size
        self.size += len(text)
        if len(ends):
            self.line_width = self.line_width or int(ends[0]) + 1
            even = self.line_width * np.arange(self.num_ends + 1, self.num_ends + len(ends) + 1) - 1
            odd = np.flatnonzero(ends != even)
            if len(odd) and self.first_odd is None:
                self.first_odd = self.num_ends + int(odd[0])
            self.num_ends, self.last_end = self.num_ends + len(ends), int(ends[-1])

    def all_gaps(self) -> Gaps:
        """Give all runs of ``N``, those that blocks cut joined; int64 (runs, 2)."""
        gaps = np.concatenate(self.gaps)
        apart = gaps[1:, 0] != gaps[:-1, 1]
        starts, ends = np.append(True, apart)[: len(gaps)], np.append(apart, True)[: len(gaps)]
        return np.stack((gaps[starts, 0], gaps[ends, 1]), axis=1)

    def contig(self) -> Contig | None:
        """Give its place, or None unless base ``i`` lies at ``offset + i + i // line_bases`` and nothing is behind."""
        line_bases = self.line_width - 1 if self.line_width else self.length
        inner = (self.length - 1) // max(line_bases, 1)
        even = line_bases > 0 and (self.first_odd is None or self.first_odd >= inner)
        closed = self.num_ends == inner + 1 and self.last_end == self.size - 1
        is_even = even and (self.num_ends == inner or closed)
        return Contig(self.length, self.offset, line_bases) if is_even else None


def find_gaps(letters: bytes, start: int = 0) -> Gaps:
    """Give the half-open runs of ``N`` or ``n``, counted from ``start``; int64 (runs, 2)."""
    if b"N" not in letters and b"n" not in letters:
        return np.empty((0, 2), np.int64)
    unknown = (np.frombuffer(letters, np.uint8) | 32) == ord("n")
    edges = np.flatnonzero(np.diff(unknown.view(np.int8), prepend=np.int8(0), append=np.int8(0)))
    return edges.reshape(-1, 2).astype(np.int64) + start
