"""Many genomes as one: where their contigs and known bases lie, found once and read by position.

A `GenomeSet` holds columns, not objects: one row a contig, one row a stretch without long runs of N. For more than a
few files the columns are kept in the cache and mapped into memory, so a thousand genomes open as fast as one, workers
and processes share them, and a window costs one read of one file.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import compress, pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from longstrand.config import StrictModel
from longstrand.errors import InputError, LongstrandError, UsageError
from longstrand.genome.fasta import Genome, OpenFile, genome_name
from longstrand.genome.fasta_index import find_fasta, index_fasta
from longstrand.genome.fasta_scan import FastaIndex
from longstrand.runtime import cache_dir, progress_bar, read_json, replacing_folder, take_lock, write_json

Ints = npt.NDArray[np.int64]
MIN_UNKNOWN_RUN = 100
"""Default: runs of fewer N stay inside a window (scaffolding gaps are longer, single unknown bases are shorter)."""
KEPT_FROM = 16
"""From so many files on, the columns are kept in the cache."""
MOST_OPEN = max(64, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
"""Files that a process holds open at a time: half of what the system allows it."""
INDEXED_AT_ONCE = 4
FORMAT_VERSION = 1
LENGTH, OFFSET, LINE_BASES, UNKNOWN = 0, 1, 2, 3
COLUMNS = {"contigs": (np.int64, 4), "runs": (np.int64, 3), "header_ends": (np.int64, 1), "headers": (np.uint8, 1)}
"""Files of the index: contigs (length, offset, line_bases, number of N); runs (contig, start, end); header lines."""


@dataclass(frozen=True)
class GenomeSource:
    """A FASTA file to draw windows from.

    Attributes:
        fasta: path (plain, gzip or bgzip) or an open `Genome`.
        weight: windows per base relative to the other sources; with equal weights larger genomes give more windows.
        name: what reports call it; the file name by default.
        taxon: class of the species, for `Sampling`.
    """

    fasta: Path | str | Genome
    weight: float = 1.0
    name: str | None = None
    taxon: str | None = None

    def open(self) -> Genome:
        """Open the genome (indexed on first use)."""
        return self.fasta if isinstance(self.fasta, Genome) else Genome(self.fasta)


class Sampling(StrictModel):
    """How often each genome is read. Its share is its weight times its bases to the power 1 / temperature."""

    temperature: float = Field(
        1.0, ge=1, description="1: each base is read as often; higher: small genomes more often; inf: each genome alike"
    )
    taxa: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict, description="share of the windows of each taxon; default: what its genomes have"
    )

    @field_validator("taxa")
    @classmethod
    def _some(cls, value: dict[str, float]) -> dict[str, float]:
        if value and not any(value.values()):
            raise ValueError("all shares are 0, so nothing would be read")
        return value

    def shares(self, bases: Ints, weights: npt.NDArray[np.float64], taxa: Sequence[str | None]) -> np.ndarray:
        """Compute the share of each genome, float64 (genomes,), in any unit.

        Raises:
            UsageError: a taxon of the settings has no base, or a genome is of none of them.
        """
        with np.errstate(divide="ignore"):
            shares = weights * np.where(bases > 0, np.asarray(bases, dtype=float) ** (1 / self.temperature), 0.0)
        if not self.taxa:
            return shares
        groups = np.array([taxon or "" for taxon in taxa])
        if strange := sorted(set(groups.tolist()) - set(self.taxa)):
            number = int((groups == strange[0]).sum())
            what = (
                f"the taxon '{strange[0]}' of {number} genomes" if strange[0] else f"{number} genomes without a taxon"
            )
            raise UsageError(f"data.sampling.taxa gives no share to {what}; it names {', '.join(self.taxa)}.")
        for taxon, wanted in self.taxa.items():
            total = float(shares[groups == taxon].sum())
            if not total and wanted:
                raise UsageError(f"data.sampling.taxa: no genome has bases of the taxon '{taxon}' to read.")
            shares[groups == taxon] *= wanted / max(total, 1e-300)
        return shares


class ContigRules(StrictModel):
    """Which contigs of a genome are read at all."""

    min_length: int = Field(0, ge=0, description="shorter ones are left out (GENA-LM: 10000)")
    max_unknown: float = Field(1.0, gt=0, le=1, description="ones with a greater share of N are left out")
    unknown_run: int = Field(MIN_UNKNOWN_RUN, ge=1, description="runs of so many N are never read (1: no N at all)")
    only: tuple[str, ...] = Field((), description="patterns (*, ?) of names or whole header lines that are read")
    skip: tuple[str, ...] = Field((), description="patterns that are not read, as *mitochondrion*")

    def allowed(self, genomes: GenomeSet) -> np.ndarray | None:
        """Say which contigs are read, bool (contigs,); None: all."""
        if not (self.min_length or self.only or self.skip) and self.max_unknown == 1:
            return None
        lengths, unknown = genomes.contigs[:, LENGTH], genomes.contigs[:, UNKNOWN]
        allowed: np.ndarray = (lengths >= self.min_length) & (unknown <= self.max_unknown * lengths)
        if self.only or self.skip:
            for contig in np.flatnonzero(allowed).tolist():
                texts = (header := genomes.header(contig)), header.partition(" ")[0]
                is_in = [
                    any(fnmatchcase(text, name) for text in texts for name in kind) for kind in (self.only, self.skip)
                ]
                allowed[contig] = (is_in[0] or not self.only) and not is_in[1]
        return allowed


class GenomeSet:
    """Genomes to draw windows from. Pickles; a process that unpickles it reads the same index.

    Attributes:
        names: of the genomes; unique.
        weights: float64 (genomes,), see `GenomeSource`.
        taxa: of the genomes.
        fingerprints: of the genomes, as `Genome.fingerprint`.
        contigs: int64 (contigs, 4): length, offset and line_bases of `Contig`, and the number of N.
        runs: int64 (stretches, 3): contig, start, end of what lies between long runs of N and the ends.
        first_contig, first_run: int64 (genomes + 1,), where each genome begins in the two.
        sampling: how often each genome is read.
        allowed: bool (contigs,), those that are read; None: all.
    """

    contigs: Ints
    runs: Ints
    allowed: np.ndarray | None = None

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        genomes: Sequence[Mapping[str, Any]],
        sources: Sequence[GenomeSource],
        *,
        folder: Path | None = None,
    ) -> None:
        self._genomes, self._sources, self._folder = genomes, sources, folder
        self.contigs, self.runs = columns["contigs"], columns["runs"]
        self._header_ends, self._headers = columns["header_ends"], columns["headers"]
        self.names, self.weights = _unique_names(sources), np.array([source.weight for source in sources], dtype=float)
        self.taxa = [source.taxon for source in sources]
        self.fingerprints = [str(genome["fingerprint"]) for genome in genomes]
        self.first_contig = np.concatenate([[0], np.cumsum([genome["num_contigs"] for genome in genomes])])
        self.first_run = np.concatenate([[0], np.cumsum([genome["num_runs"] for genome in genomes])])
        self.sampling = Sampling()
        self._keep_files()

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "_file"}
        state["_sources"] = [GenomeSource(_path(s), s.weight, s.name, s.taxon) for s in self._sources]
        if self._folder is not None:
            for name in ("contigs", "runs", "_header_ends", "_headers"):
                del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._folder is not None:
            columns = _map(self._folder, read_json(self._folder / "index.json")["rows"])
            self.contigs, self.runs = columns["contigs"], columns["runs"]
            self._header_ends, self._headers = columns["header_ends"], columns["headers"]
        self._keep_files()

    def _keep_files(self) -> None:
        """Let files stay open: all, if the system allows so many, else those that were read last."""
        self._file = lru_cache(None if len(self) <= MOST_OPEN else MOST_OPEN)(self._open)

    def path(self, genome: int) -> Path:
        """Return the file of a genome, as given."""
        return _path(self._sources[genome])

    def open(self, genome: int) -> Genome:
        """Open one genome by itself."""
        return self._sources[genome].open()

    def header(self, contig: int) -> str:
        """Return the header line of a contig, without ``>``."""
        start = int(self._header_ends[contig - 1]) if contig else 0
        return self._headers[start : int(self._header_ends[contig])].tobytes().decode()

    def chrom(self, contig: int) -> str:
        """Return the name of a contig."""
        return self.header(contig).partition(" ")[0]

    def chroms(self, genome: int) -> list[str]:
        """Return the names of all contigs of a genome, in the order of the file."""
        first, last = self.first_contig[genome : genome + 2].tolist()
        start = int(self._header_ends[first - 1]) if first else 0
        text = self._headers[start : int(self._header_ends[last - 1])].tobytes()
        names = [text[a:b] for a, b in pairwise([0, *(self._header_ends[first:last] - start).tolist()])]
        if b" " in text:
            names = [name.partition(b" ")[0] for name in names]
        return b"\n".join(names).decode().split("\n")

    def find(self, genome: int, chroms: Collection[str]) -> dict[str, int]:
        """Find the numbers of contigs of a genome by their names; those that are not there or not read are left out."""
        first = int(self.first_contig[genome])
        found = {chrom: number for number, chrom in enumerate(self.chroms(genome), first) if chrom in chroms}
        if self.allowed is None:
            return found
        return {chrom: number for chrom, number in found.items() if self.allowed[number]}

    def lengths(self, genome: int) -> dict[str, int]:
        """Return the contigs of a genome that are read, with their lengths, in the order of the file."""
        here = slice(*self.first_contig[genome : genome + 2].tolist())
        found = zip(self.chroms(genome), self.contigs[here, LENGTH].tolist())
        return dict(found if self.allowed is None else compress(found, self.allowed[here]))

    @property
    def is_even(self) -> bool:
        """Whether every base is read as often as any other."""
        return self.sampling == Sampling() and len(set(self.weights.tolist())) == 1

    def read(self, genome: int, contig: int, start: int, end: int) -> str:
        """Read bases ``start`` to ``end - 1`` of a contig, letters and case as in the file."""
        return self._file(genome).read_bases(self.contigs[contig].tolist()[:3], start, end)

    def _open(self, genome: int) -> OpenFile:
        facts = self._genomes[genome]
        file = OpenFile(facts["file"])
        if file.size_and_time() != (facts["size"], facts["time"]):
            raise InputError(
                f"{self.path(genome)}: the file changed since this run opened it; start again with the new file."
            )
        return file


def open_genomes(
    genomes: GenomeSet | Sequence[GenomeSource | Genome | Path | str], *, unknown_run: int = MIN_UNKNOWN_RUN
) -> GenomeSet:
    """Open the sources of a window data set; a set is returned as it is. Runs of ``unknown_run`` N are never read.

    Raises:
        ValueError: there is none.
        InputError: files are missing or cannot be read; all of them are named.
    """
    if isinstance(genomes, GenomeSet):
        return genomes
    if not genomes:
        raise ValueError("windows need at least one genome.")
    sources = [item if isinstance(item, GenomeSource) else GenomeSource(item) for item in genomes]
    keys = _find_all(sources)
    if len(sources) < KEPT_FROM or any(isinstance(source.fasta, Genome) for source in sources):
        parts: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
        facts = _stack(_indexes(sources), unknown_run, lambda name, part: parts[name].append(part))
        return GenomeSet({name: np.concatenate(found) for name, found in parts.items()}, facts, sources)
    key = hashlib.sha256("\n".join([str(unknown_run), *keys]).encode()).hexdigest()[:32]
    folder = cache_dir() / "corpora" / key
    found = _read(folder)
    if found is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with take_lock(folder.with_suffix(".lock"), None):
            if (found := _read(folder)) is None:
                try:
                    write_index(folder, _indexes(sources), unknown_run)
                except InputError:
                    if _read(folder) is None:  # where there are no locks, another process may have been first
                        raise
                found = _read(folder)
    if found is None:
        raise InputError(f"{folder}: the index of the genomes cannot be read back; check the disk.")
    return GenomeSet(*found, sources, folder=folder)


def write_index(folder: Path, indexes: Iterable[FastaIndex], unknown_run: int = MIN_UNKNOWN_RUN) -> None:
    """Write the columns of some genomes into a folder, one genome in memory at a time.

    Raises:
        InputError: the disk is full or cannot be written.
    """
    try:
        with replacing_folder(folder) as new:
            with ExitStack() as stack:
                files = {name: stack.enter_context(open(new / name, "wb")) for name in COLUMNS}
                facts = _stack(indexes, unknown_run, lambda name, part: part.tofile(files[name]))
                rows = {
                    name: files[name].tell() // np.dtype(kind).itemsize // width
                    for name, (kind, width) in COLUMNS.items()
                }
            write_json(new / "index.json", {"format": FORMAT_VERSION, "rows": rows, "genomes": facts})
    except OSError as error:
        raise InputError(
            f"{folder}: the index of the genomes cannot be written ({error.strerror or error}); free some space or set "
            "LONGSTRAND_CACHE to another folder."
        ) from error


def _read(folder: Path) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]] | None:
    """Map the columns of a folder; None if it is absent, of another format, or not whole."""
    try:
        stored = json.loads((folder / "index.json").read_text())
        if stored["format"] != FORMAT_VERSION:
            return None
        if any(not os.path.exists(genome["file"]) for genome in stored["genomes"]):
            shutil.rmtree(folder, ignore_errors=True)  # a copy in the cache was removed
            return None
        return _map(folder, stored["rows"]), stored["genomes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _map(folder: Path, rows: Mapping[str, int]) -> dict[str, np.ndarray]:
    columns = {}
    for name, (kind, width) in COLUMNS.items():
        shape = (rows[name], width) if width > 1 else (rows[name],)
        columns[name] = np.memmap(folder / name, kind, "r", shape=shape).view(np.ndarray)
    return columns


def _stack(
    indexes: Iterable[FastaIndex], unknown_run: int, put: Callable[[str, np.ndarray], object]
) -> list[dict[str, Any]]:
    """Hand out the columns of one genome after the other, numbered on; gives the facts of each."""
    facts = list[dict[str, Any]]()
    num_contigs = num_letters = 0
    for index in indexes:
        contigs, runs = known_runs(index, unknown_run)
        texts = [f"{name} {index.descriptions[name]}" if name in index.descriptions else name for name in index.contigs]
        headers = [text.encode() for text in texts]
        put("contigs", contigs)
        put("runs", runs + np.array([num_contigs, 0, 0]))
        put("header_ends", num_letters + np.cumsum([len(header) for header in headers], dtype=np.int64))
        put("headers", np.frombuffer(b"".join(headers), dtype=np.uint8))
        status = index.path.stat()
        facts.append({
            "file": str(index.path), "size": status.st_size, "time": status.st_mtime_ns,
            "fingerprint": index.fingerprint, "num_contigs": len(contigs), "num_runs": len(runs),
        })  # fmt: skip
        num_contigs, num_letters = num_contigs + len(contigs), num_letters + sum(map(len, headers))
    return facts


def known_runs(index: FastaIndex, unknown_run: int) -> tuple[Ints, Ints]:
    """Find the stretches of a genome between long runs of N.

    Returns:
        contigs int64 (c, 4) as in `GenomeSet`, and runs int64 (r, 3): contig, start, end.
    """
    places = np.array(list(index.contigs.values()), dtype=np.int64).reshape(-1, 3)
    sizes = np.array([len(gaps) for gaps in index.gaps.values()])
    gaps = np.concatenate([np.empty((0, 2), np.int64), *(gaps for gaps in index.gaps.values() if len(gaps))])
    owners = np.repeat(np.arange(len(places)), sizes)
    unknown = np.bincount(owners, weights=gaps[:, 1] - gaps[:, 0], minlength=len(places)).astype(np.int64)
    lengths = places[:, LENGTH]
    cuts = (gaps[:, 1] - gaps[:, 0] >= unknown_run) | (gaps[:, 0] == 0) | (gaps[:, 1] == lengths[owners])
    owners, gaps = owners[cuts], gaps[cuts]
    every = np.arange(len(places))
    starts = np.stack((np.append(every, owners), np.append(np.zeros_like(lengths), gaps[:, 1])), axis=1)
    ends = np.stack((np.append(every, owners), np.append(lengths, gaps[:, 0])), axis=1)
    starts, ends = (part[np.lexsort((part[:, 1], part[:, 0]))] for part in (starts, ends))
    runs = np.concatenate([starts, ends[:, 1:]], axis=1)
    return np.concatenate([places, unknown[:, None]], axis=1), runs[runs[:, 1] < runs[:, 2]]


def _find_all(sources: Sequence[GenomeSource]) -> list[str]:
    """Find the cache keys of all files, or name all that are missing."""
    keys, faults = list[str](), dict[str, list[str]]()
    for source in sources:
        try:
            keys.append(find_fasta(source.fasta)[1] if not isinstance(source.fasta, Genome) else "")
        except LongstrandError as error:
            path = str(_path(source).expanduser())
            faults.setdefault(str(error).removeprefix(f"{path}: "), []).append(path)
    if number := sum(map(len, faults.values())):
        listed = " ".join(f"{', '.join(paths)}: {reason}" for reason, paths in faults.items())
        raise InputError(listed if number == 1 else f"{number} genomes cannot be read: {listed}")
    return keys


def _indexes(sources: Sequence[GenomeSource]) -> Iterator[FastaIndex]:
    """Index a few files at a time, in order: reading, hashing and writing leave Python's lock to others.

    Raises:
        InputError: files are damaged; all of them are named, when the others are indexed.
    """
    cache_dir()
    faults = list[str]()
    with (
        ThreadPoolExecutor(INDEXED_AT_ONCE) as pool,
        progress_bar("indexing", total=len(sources), unit="genomes") as bar,
    ):
        for start in range(0, len(sources), 4 * INDEXED_AT_ONCE):
            for index in pool.map(_index_of, sources[start : start + 4 * INDEXED_AT_ONCE]):
                if isinstance(index, FastaIndex):
                    yield index
                else:
                    faults.append(str(index))
                bar.update(1)
    if faults:
        raise InputError(" ".join(faults))


def _index_of(source: GenomeSource) -> FastaIndex | InputError:
    try:
        return source.fasta.index if isinstance(source.fasta, Genome) else index_fasta(Path(source.fasta))
    except InputError as error:
        return error


def _path(source: GenomeSource) -> Path:
    return source.fasta.path if isinstance(source.fasta, Genome) else Path(source.fasta)


def _unique_names(sources: Sequence[GenomeSource]) -> list[str]:
    names = dict[str, None]()
    for source in sources:
        name = source.name or (
            source.fasta.name if isinstance(source.fasta, Genome) else genome_name(Path(source.fasta))
        )
        names[name if name not in names else f"{name}#{len(names) + 1}"] = None
    return list(names)
