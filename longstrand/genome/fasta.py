"""A genome on disk: any base of an indexed FASTA file in microseconds, from any process or thread."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Container, Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from longstrand.errors import InputError, nearest
from longstrand.genome.fasta_index import index_fasta
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement

logger = logging.getLogger(__name__)

_LARGEST_READ = 1 << 30


class OpenFile:
    """A plain FASTA file that bases are read from by position; closed with its last reference.

    Raises:
        InputError: it cannot be opened.
    """

    __slots__ = ("__weakref__", "_number", "path")

    def __init__(self, path: Path | str) -> None:
        self.path = path
        try:
            self._number = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
        weakref.finalize(self, os.close, self._number)

    def size_and_time(self) -> tuple[int, int]:
        """Return its bytes, and the nanosecond of its last change."""
        status = os.fstat(self._number)
        return status.st_size, status.st_mtime_ns

    def read_bases(self, place: tuple[int, int, int], start: int, end: int) -> str:
        """Read bases ``start`` to ``end - 1`` of the record at a place (the fields of `Contig`); not checked again.

        Raises:
            InputError: the file is too short for them.
        """
        if start == end:
            return ""
        length, offset, line_bases = place
        first = offset + start + start // line_bases
        last = offset + end + (end - 1) // line_bases
        read = os.pread if last - first <= _LARGEST_READ else _read_long
        letters = read(self._number, last - first, first)
        if line_bases < length:
            letters = letters.replace(b"\n", b"")
        if len(letters) != end - start:
            raise InputError(f"{self.path}: the file changed while it was being read; start again with the new file.")
        return letters.decode("ascii")


class Genome:
    """Random access to the sequences of a FASTA file (plain, gzip or bgzip).

    The first use scans the file and keeps an index in the cache folder, with a plain copy if the file is compressed
    or has uneven lines; later uses open at once. Reads name their position and share no state, so one object serves
    threads and forked workers; pickling (spawned workers) opens the file anew and checks that it has not changed.

    Attributes:
        path: the file as given.
        name: its name without ``.fa``, ``.fasta``, ``.fna``, ``.gz`` endings.
        contigs: number of bases by record name, in the order of the file.
        index: where the records lie.
        fingerprint: ``sha256:...`` of names and sequences, independent of compression and line length.

    Raises:
        InputError: the file is missing, not FASTA, truncated, holds an empty or duplicate record or a letter that is no
            nucleotide, or the cache disk is full.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = genome_name(self.path)
        self.index = index = index_fasta(self.path)
        self.fingerprint, self._places, self._gaps = index.fingerprint, index.contigs, index.gaps
        self._plain = Path(index.path)
        self.contigs: dict[str, int] = {name: contig.length for name, contig in index.contigs.items()}
        self._file = OpenFile(index.path)

    def fetch(self, chrom: str, start: int, end: int) -> str:
        """Read bases ``start`` to ``end - 1`` (0-based) of a record, letters and case as in the file.

        Raises:
            InputError: there is no such record, the range leaves it, or the file changed since it was indexed.
        """
        try:
            place = self._places[chrom]
        except KeyError:
            raise InputError(f"{self.path}: {self._no_record(chrom)}") from None
        if not 0 <= start <= end <= place[0]:
            raise InputError(
                f"{self.path}: {chrom}:{start + 1}-{end} leaves the record, which has {place[0]} bases; "
                "check that the coordinates belong to this assembly."
            )
        return self._file.read_bases(place, start, end)

    def fetch_interval(self, interval: Interval) -> str:
        """Read an interval on its strand: the reverse complement for ``-``."""
        sequence = self.fetch(interval.chrom, interval.start, interval.end)
        return reverse_complement(sequence) if interval.strand == "-" else sequence

    def fetch_padded(self, chrom: str, start: int, end: int, strand: str) -> str:
        """Read bases ``start`` to ``end - 1`` on a strand; positions beyond the ends of the record are N.

        Raises:
            InputError: as `fetch`.
        """
        length = self.whole(chrom).length
        inside = self.fetch(chrom, min(max(start, 0), length), min(max(end, 0), length))
        sequence = "N" * min(-min(start, 0), end - start) + inside + "N" * min(max(end - length, 0), end - start)
        return reverse_complement(sequence) if strand == "-" else sequence

    @property
    def plain(self) -> Path:
        """The uncompressed file that is read: the file itself, or its copy in the cache."""
        return self._plain

    def fai(self) -> str:
        """Write the index of `plain` as samtools does: name, bases, first byte, bases and bytes of a line."""
        lines = (
            f"{name}\t{length}\t{offset}\t{bases}\t{bases + 1}\n"
            for name, (length, offset, bases) in self._places.items()
        )
        return "".join(lines)

    def whole(self, chrom: str) -> Interval:
        """Give the interval of a whole record.

        Raises:
            InputError: there is no such record.
        """
        if chrom not in self.contigs:
            raise InputError(f"{self.path}: {self._no_record(chrom)}")
        return Interval(chrom, 0, self.contigs[chrom])

    def non_n_runs(self, chrom: str, min_length: int = 1) -> list[tuple[int, int]]:
        """Give the half-open stretches without ``N`` of at least ``min_length`` bases, sorted.

        Raises:
            InputError: there is no such record.
        """
        length = self.whole(chrom).length
        runs = np.concatenate([[0], self._gaps[chrom].reshape(-1), [length]]).reshape(-1, 2)
        wanted = runs[:, 1] - runs[:, 0] >= max(1, min_length)
        return [(start, end) for start, end in runs[wanted].tolist()]

    def check_chroms(self, chroms: Iterable[str], *, where: str = "") -> None:
        """Check that all these record names exist.

        Raises:
            InputError: some do not; the message names them, ``where``, and what the file calls its records.
        """
        missing = list(dict.fromkeys(chrom for chrom in chroms if chrom not in self.contigs))
        if missing:
            place = f"{where}: " if where else ""
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise InputError(f"{place}{self._no_record(missing[0], more)}")

    def _no_record(self, chrom: str, more: str = "") -> str:
        twin = chrom_twin(chrom, self.contigs)
        shown = ", ".join(list(self.contigs)[:5]) + (
            f" and {len(self.contigs) - 5} more" if len(self.contigs) > 5 else ""
        )
        if twin is not None:
            found = f"no record '{chrom}'{more} in {self.path.name}, which calls it '{twin}'"
            return f"{found}; use that name, or rename the record."
        return f"no record '{chrom}'{more} in {self.path.name}{nearest(chrom, self.contigs)}; its records are {shown}."

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (str(self.path.absolute()), str(self.path), self.fingerprint)

    def __repr__(self) -> str:
        return f"Genome({str(self.path)!r}: {len(self.contigs)} records, {sum(self.contigs.values()):,} bases)"


def genome_name(path: Path) -> str:
    """Give a file name without its FASTA and compression endings."""
    name = Path(path).name
    for ending in (".gz", ".bgz", ".zst", ".fa", ".fasta", ".fna", ".ffn", ".fas", ".fsa"):
        name = name.removesuffix(ending) or name
    return name


def chrom_twin(chrom: str, names: Iterable[str]) -> str | None:
    """Find the same chromosome under its other usual name: ``chr1`` and ``1``, ``chrM`` and ``MT``."""
    return next(iter(_twins(chrom, set(names))), None)


def _twins(chrom: str, known: Container[str]) -> list[str]:
    bare = chrom.removeprefix("chr").removeprefix("Chr")
    mitochondrial = ["chrM", "MT", "M", "chrMT", "Mito", "chrMito"] if bare.upper() in {"M", "MT", "MITO"} else []
    twins = dict.fromkeys(("chr" + bare, bare, "Chr" + bare, *mitochondrial, chrom.upper(), chrom.lower()))
    return [twin for twin in twins if twin in known and twin != chrom]


def match_contigs(names: Iterable[str], known: Container[str], source: object) -> dict[str, str]:
    """Say what a genome calls the contigs of a file.

    If it has one of them, all are meant by their own names. If it has none, ``chr1`` is ``1`` there, and so on.

    Args:
        names: contigs of the file.
        known: those of the genome.
        source: the file, for the error.

    Returns:
        For every name that the genome knows, its name there.

    Raises:
        InputError: a name could be two contigs of the genome, or two names the same one.
    """
    distinct = list(dict.fromkeys(names))
    if own := {name: name for name in distinct if name in known}:
        return own
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in distinct:
        twins = _twins(name, known)
        if len(twins) > 1:
            both = "' or '".join(twins)
            raise InputError(f"{source}: contig '{name}' could be '{both}' of the genome; rename the contigs of one.")
        if twins and twins[0] in taken:
            both = f"'{taken[twins[0]]}' and '{name}'"
            raise InputError(f"{source}: contigs {both} would both be '{twins[0]}' of the genome; rename one.")
        if twins:
            found[name] = twins[0]
            taken[twins[0]] = name
    return found


def matched_note(names: Mapping[str, str | None], source: object = "") -> str | None:
    """Say in words which contigs `match_contigs` gave another name, or nothing."""
    renamed = {name: other for name, other in names.items() if other not in (None, name)}
    if not renamed:
        return None
    name, other = next(iter(renamed.items()))
    number = f"; {len(renamed):,} contigs were matched" if len(renamed) > 1 else "; it was matched"
    return (
        f"{source}{': ' if source else ''}contigs are called otherwise in the genome ('{name}' is '{other}'){number}."
    )


def say_matched(names: Mapping[str, str], source: object) -> None:
    """Log the note of `matched_note`, once for a file that is read several times."""
    if matched := matched_note(names, source):
        _warn_once(matched)


@lru_cache(maxsize=256)
def _warn_once(text: str) -> None:
    logger.warning(text)


def _read_long(file: int, num_bytes: int, offset: int) -> bytes:
    """Read more than one system call gives (2 GB on Linux)."""
    parts = []
    while num_bytes:
        part = os.pread(file, min(_LARGEST_READ, num_bytes), offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        num_bytes -= len(part)
    return b"".join(parts)


def _reopen(absolute: str, path: str, fingerprint: str) -> Genome:
    genome = Genome(absolute)
    genome.path = Path(path)
    if genome.fingerprint != fingerprint:
        raise InputError(f"{path}: the file changed since this run opened it; start again with the new file.")
    return genome
