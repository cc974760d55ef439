"""Whole contigs as rows to read, and the spool on disk that holds what the model says about each of their tokens.

A contig is read as the stretches between long runs of N. Every stretch gives a row for each view (strand and shift, see
`longstrand.inference.strands`); a row is a text of its own, as if given to `predict`. Files, not memory maps, so that
what a process holds does not grow with a contig.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.genome.sequence import normalise
from longstrand.inference.strands import View
from longstrand.runtime import read_json, write_json
from longstrand.tokenization.base import Encoding

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome

PIECE = 1 << 18
"""Bases read from the genome at a time."""


@dataclass(frozen=True)
class Stretch:
    """A part of a contig without a long run of N, 0-based half-open."""

    contig: str
    start: int
    end: int


def stretches(genome: Genome, contig: str, *, shortest_gap: int) -> list[Stretch]:
    """Cut a contig at its runs of at least ``shortest_gap`` N (0: nowhere); ends without them are trimmed alike."""
    length = genome.contigs[contig]
    if not shortest_gap:
        return [Stretch(contig, 0, length)]
    found: list[list[int]] = []
    end = -shortest_gap
    for start, stop in genome.non_n_runs(contig):
        if found and start - end < shortest_gap:
            found[-1][1] = stop
        else:
            found.append([start if start >= shortest_gap else 0, stop])
        end = stop
    if found and length - found[-1][1] < shortest_gap:
        found[-1][1] = length
    if not found and length < shortest_gap:
        found = [[0, length]]
    return [Stretch(contig, start, stop) for start, stop in found]


@dataclass(frozen=True)
class ContigRow:
    """One stretch on one view: ``num_bases`` letters from ``start`` on (N beyond the contig), on a strand."""

    stretch: Stretch
    view: View

    @property
    def start(self) -> int:
        """Give the first base, on the contig; may be negative."""
        return self.stretch.start + self.view[1]

    @property
    def num_bases(self) -> int:
        """Count the letters."""
        return self.stretch.end - self.stretch.start

    def fetch(self, genome: Genome, begin: int, end: int) -> str:
        """Read letters ``begin`` to ``end - 1`` of the row, in the direction of reading."""
        strand, first = self.view[0], self.start
        if strand == "-":
            begin, end = self.num_bases - end, self.num_bases - begin
        return genome.fetch_padded(self.stretch.contig, first + begin, first + end, strand)

    def pieces(self, genome: Genome, alphabet: str, counts: dict[str, int] | None = None) -> Iterator[str]:
        """Read all letters as the tokenizer knows them, bounded pieces at a time; add up what was changed."""
        for begin in range(0, self.num_bases, PIECE):
            text = normalise(self.fetch(genome, begin, min(begin + PIECE, self.num_bases)), alphabet)
            if counts is not None:
                counts["lower_case_letters"] += text.num_lower_case
                counts["unknown_letters"] += len(text.sequence) - sum(map(text.sequence.count, "ACGT"))
            yield text.sequence


@dataclass
class Spool:
    """Files of one row: ``ids`` (n,) int32, ``offsets`` (n, 2) int64 in reading order, ``values`` (n, width) float32.

    Attributes:
        path: their name without ending.
        row: what they are about.
        width: numbers of a token.
    """

    path: Path
    row: ContigRow
    width: int
    _open: dict[str, int] = field(default_factory=dict, repr=False)

    def file(self, name: str) -> int:
        """Open a file once, for reading and writing; give its descriptor."""
        if name not in self._open:
            self._open[name] = os.open(f"{self.path}.{name}", os.O_RDWR | os.O_CREAT, 0o644)
        return self._open[name]

    def close(self) -> None:
        """Close all files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def sync(self) -> None:
        """Force what was written to the disk."""
        for descriptor in self._open.values():
            os.fsync(descriptor)

    def write(self, name: str, first: int, array: np.ndarray) -> None:
        """Write records from number ``first`` on."""
        data = np.ascontiguousarray(array)
        size = data.itemsize * (int(np.prod(data.shape[1:])) if data.ndim > 1 else 1)
        os.pwrite(self.file(name), data.tobytes(), first * size)

    def read(self, name: str, first: int, end: int) -> np.ndarray:
        """Read records ``first`` to ``end - 1``."""
        kind, shape = {"ids": ("i4", ()), "offsets": ("i8", (2,))}.get(name, ("f4", (self.width,)))
        size = np.dtype(kind).itemsize * int(np.prod(shape, dtype=np.int64))
        data = os.pread(self.file(name), (end - first) * size, first * size)
        return np.frombuffer(data, dtype=kind).reshape(-1, *shape)

    @cached_property
    def num_tokens(self) -> int:
        """Count the tokens that `finish` has named."""
        return int(read_json(Path(f"{self.path}.json"))["tokens"])

    def finish(self, about: dict[str, Any]) -> None:
        """Say that the row's tokens are all there; ``about`` has their number as ``tokens``."""
        self.sync()
        write_json(Path(f"{self.path}.json"), about)

    def about(self) -> dict[str, Any] | None:
        """Give what `finish` wrote, or None."""
        path = Path(f"{self.path}.json")
        return read_json(path) if path.exists() else None

    def bases(self, begin: int, end: int, combine: Any) -> np.ndarray:
        """Spread values over bases ``begin`` to ``end - 1`` of the contig, in its order.

        Args:
            begin: first base; the row need not reach it.
            end: after the last.
            combine: makes the final values of tokens ``first`` to ``last - 1`` of this spool.

        Returns:
            (end - begin, columns) float32; NaN where the row says nothing.
        """
        first, last = max(begin, self.row.start), min(end, self.row.start + self.row.num_bases)
        reverse, span = self.row.view[0] == "-", self.row.start + self.row.num_bases
        low, high = (span - last, span - first) if reverse else (first - self.row.start, last - self.row.start)
        from_token, to_token = self._find(low, high) if low < high else (0, 0)
        values = combine(self, from_token, to_token)
        whole = np.full((end - begin, values.shape[1]), np.nan, dtype=np.float32)
        if to_token > from_token:
            offsets = np.clip(self.read("offsets", from_token, to_token), low, high) - low
            nothing = np.zeros(len(offsets), dtype=np.int32)
            inside = Encoding(nothing, offsets.astype(np.int32), high - low, nothing.astype(bool)).to_bases(values)
            whole[first - begin : last - begin] = inside[::-1] if reverse else inside
        return whole

    def _find(self, low: int, high: int) -> tuple[int, int]:
        """Find the tokens that reach into ``low`` to ``high - 1``; starts and ends ascend."""
        return self._bisect(1, low), self._bisect(0, high - 1)

    def _bisect(self, column: int, place: int) -> int:
        """Count the leading tokens whose start (0) or end (1) is at most a place."""
        low, high = 0, self.num_tokens
        while low < high:
            middle = (low + high) // 2
            if self.read("offsets", middle, middle + 1)[0, column] <= place:
                low = middle + 1
            else:
                high = middle
        return low
