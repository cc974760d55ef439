"""Signals along a genome, from BigWig and bedGraph: a number for each bin of an interval, NaN where there is none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from longstrand.errors import InputError, UsageError
from longstrand.genome.fasta import match_contigs, say_matched
from longstrand.genome.intervals import Interval
from longstrand.genome.text import KINDS, detect_file, is_comment, name_kind, open_text, parse_number, parse_whole

Reduce = Literal["mean", "sum", "max"]
Uncovered = Literal["missing", "zero"]


def is_signal(path: Path) -> bool:
    """Return whether a file's name is that of a BigWig or a bedGraph (the latter plain or packed)."""
    return name_kind(path) == "bedgraph" or Path(path).suffix.lower() in (".bw", ".bigwig")


def open_signal(path: Path) -> Signal:
    """Open a BigWig or a bedGraph, told by its content (four columns of BED with a number are a bedGraph here).

    Raises:
        InputError: the file is missing, damaged or something else.
        UsageError: a BigWig without the package pybigtools.
    """
    path = Path(path)
    kind = detect_file(path)
    if kind not in ("bigwig", "bedgraph", "bed"):
        raise InputError(f"{path}: no signal track but {KINDS[kind]}; give a BigWig or a bedGraph.")
    return BigWigSignal(path) if kind == "bigwig" else BedGraphSignal(path)


class Signal(ABC):
    """A signal along the chromosomes of a genome.

    Attributes:
        path: the file.
        lengths: bases of each chromosome that the file knows; 0 where it does not say how long it is.
        names: what the file calls the chromosomes of the genome that it was checked with.
    """

    path: Path
    lengths: dict[str, int]
    names: Mapping[str, str] = MappingProxyType({})

    def values(self, chrom: str, start: int, end: int) -> np.ndarray:
        """Give one number a base, float64 (end - start,), NaN where there is none.

        Raises:
            InputError: the file is damaged there.
        """
        name = self.names.get(chrom, chrom)
        return self._values(name, start, end) if name in self.lengths else np.full(end - start, np.nan)

    @abstractmethod
    def _values(self, chrom: str, start: int, end: int) -> np.ndarray:
        """Read the bases of an interval of a chromosome that the file has."""

    def bins(
        self, interval: Interval, bin_bases: int, *, reduce: Reduce = "mean", uncovered: Uncovered = "missing"
    ) -> np.ndarray:
        """Give one number for each bin of an interval, in the order of its strand.

        Args:
            interval: a whole number of bins.
            bin_bases: bases of a bin.
            reduce: ``mean``, ``sum`` or ``max`` over the bases of a bin.
            uncovered: bases without a value are left out (``missing``; a bin of nothing else is NaN), or 0 (``zero``).

        Returns:
            float32 (bins,).

        Raises:
            InputError: a value is infinite.
        """
        values = self.values(interval.chrom, interval.start, interval.end)
        if len(infinite := np.flatnonzero(np.isinf(values))):
            place = f"{interval.chrom}:{interval.start + int(infinite[0]) + 1:,}"
            raise InputError(f"{self.path}: the value at {place} is infinite; replace it, or leave the region out.")
        values = values.reshape(-1, bin_bases)
        known = ~np.isnan(values)
        filled = np.where(known, values, -np.inf if reduce == "max" and uncovered == "missing" else 0.0)
        counted = known.sum(axis=1) if uncovered == "missing" else np.full(len(values), bin_bases)
        if reduce == "max":
            result = filled.max(axis=1)
        else:
            result = filled.sum(axis=1) / (np.maximum(counted, 1) if reduce == "mean" else 1)
        result = np.where(counted > 0, result, np.nan).astype(np.float32)
        return result if interval.strand == "+" else result[::-1]

    def check_genome(self, contigs: Mapping[str, int]) -> None:
        """Refuse a signal that lies on another genome; from here on its chromosomes go by the genome's names.

        Raises:
            InputError: no chromosome is one of the genome, one could be two of them, or one has another length there.
        """
        shared = match_contigs(self.lengths, contigs, self.path)
        if not shared:
            raise InputError(
                f"{self.path}: no chromosome of the genome is in this track; it has {_some(self.lengths)}, the genome "
                f"has {_some(contigs)}."
            )
        for name, there in shared.items():
            if self.lengths[name] and self.lengths[name] != contigs[there]:
                raise InputError(
                    f"{self.path}: '{name}' has {self.lengths[name]:,} bases in the track and {contigs[there]:,} in "
                    "the genome; they are of different assemblies."
                )
        say_matched(shared, self.path)
        self.names = {there: name for name, there in shared.items()}


def _some(names: Mapping[str, int]) -> str:
    return ", ".join(list(names)[:6]) + (", ..." if len(names) > 6 else "")


class BigWigSignal(Signal):
    """A BigWig, read by pybigtools interval by interval."""

    def __init__(self, path: Path) -> None:
        try:
            import pybigtools
        except ImportError:
            raise UsageError(
                f"{path}: BigWig needs the package pybigtools: pip install 'longstrand[tracks]'; or give a bedGraph."
            ) from None
        self.path = path
        try:
            self._file: Any = pybigtools.open(str(path))
            self.lengths = dict(self._file.chroms())
        except Exception as error:  # the library raises several kinds, some of its own
            raise InputError(f"{path}: not readable as BigWig ({error}).") from None

    def _values(self, chrom: str, start: int, end: int) -> np.ndarray:
        try:
            return np.asarray(self._file.values(chrom, start, end, fillna=None), dtype=np.float64)
        except Exception as error:  # a file that is cut off
            raise InputError(f"{self.path}: damaged at {chrom}:{start + 1}-{end} ({error}); get it again.") from None


class BedGraphSignal(Signal):
    """A bedGraph (chrom, start, end, value), held in memory: 24 bytes a line.

    Raises:
        InputError: the file is damaged, a line is no interval with a number, or two lines overlap.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        columns = _read_bedgraph(path)
        self._spans: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        for chrom, (starts, ends, values) in columns.items():
            order = np.argsort(starts, kind="stable")
            starts, ends, values = starts[order], ends[order], values[order]
            clash = np.flatnonzero(starts[1:] < ends[:-1])
            if len(clash):
                place = int(clash[0])
                raise InputError(
                    f"{path}: two lines give a value for {chrom}:{starts[place + 1]}; a bedGraph has one value a base."
                )
            self._spans[chrom] = starts, ends, values
        self.lengths = dict.fromkeys(self._spans, 0)

    def check_genome(self, contigs: Mapping[str, int]) -> None:
        """Refuse a track of another genome; a line past the end of its chromosome says so, too."""
        super().check_genome(contigs)
        for there, chrom in self.names.items():
            last = self._spans[chrom][1][-1]
            if last > contigs[there]:
                raise InputError(f"{self.path}: a line ends at {chrom}:{last}; it has {contigs[there]:,} bases.")

    def _values(self, chrom: str, start: int, end: int) -> np.ndarray:
        found = np.full(end - start, np.nan)
        starts, ends, values = self._spans[chrom]
        first, last = np.searchsorted(ends, start, side="right"), np.searchsorted(starts, end)
        for line in range(int(first), int(last)):
            found[max(0, starts[line] - start) : ends[line] - start] = values[line]
        return found


def _read_bedgraph(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    lists: dict[str, tuple[list[int], list[int], list[float]]] = {}
    with open_text(path) as lines:
        for line, text in enumerate(lines, start=1):
            if not text.strip() or is_comment(text):
                continue
            cells = text.split()
            start, end = (parse_whole(cell) for cell in cells[1:3]) if len(cells) == 4 else (None, None)
            value = parse_number(cells[3]) if len(cells) == 4 else None
            is_nan = value is None and cells[-1].lower() == "nan"
            if start is None or end is None or (value is None and not is_nan):
                raise InputError(f"{path}:{line}: expected chrom, start, end and a number, got '{text.strip()}'.")
            if not 0 <= start < end:
                raise InputError(f"{path}:{line}: start {start}, end {end} is no piece of a track.")
            held = lists.setdefault(cells[0], ([], [], []))
            held[0].append(start)
            held[1].append(end)
            held[2].append(float("nan") if value is None else value)
    if not lists:
        raise InputError(f"{path}: the file holds no line of a track.")
    return {
        chrom: (np.array(starts, np.int64), np.array(ends, np.int64), np.array(values, np.float64))
        for chrom, (starts, ends, values) in lists.items()
    }
