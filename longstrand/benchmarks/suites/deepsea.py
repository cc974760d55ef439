"""DeepSEA's 919 chromatin features: 1 kb as published, 8 kb by finding each sequence in the genome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.benchmarks.tasks.build import source_paths, write_task
from longstrand.benchmarks.tasks.task import SPLITS, BenchmarkTask, TaskData
from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.data.rows import read_headless
from longstrand.errors import InputError, UsageError
from longstrand.evaluation.leakage import canonical_words
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement
from longstrand.runtime import generator

GROUPS = {"DHS": (0, 125), "TF": (125, 815), "HM": (815, 919)}
"""Half-open columns of DNase sites, transcription factors and histone marks."""

NUM_FEATURES = 919

NEIGHBOURS = 100
"""A random part of an HDF5 file is read in stretches of so many rows, so that the rest of the file stays unread."""

_LETTERS = np.frombuffer(b"AGCTN", dtype=np.uint8)
_ROWS_STEP = 4000
_HDF5 = b"\x89HDF\r\n\x1a\n"

ANCHOR = 32
_STEP = 1 << 24


def build_deepsea(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
    """Build 1,000 bases with 919 labels, or ``window`` bases around them.

    Reads the published ``.mat`` files or headerless rows ``SEQUENCE,label x 919``. For a longer window each sequence is
    looked up in the genome (``fasta``, hg19), on both strands; rows that are not found at exactly one place are left
    out, as the paper says. ``published=yes`` does as the published script: rows that are not found keep their 1,000
    bases, and the window lies one base too far to the right. Beyond the end of a chromosome are N.

    Raises:
        InputError: a file is wrong, or no sequence is found in the genome.
        UsageError: a longer window without a genome.
    """
    paths = source_paths(task, sources, options)
    tables = {}
    for name, path in zip(SPLITS, paths):
        tables[name] = read_deepsea(path, name, max_rows=options["max_rows"], seed=options["seed"])
    num_bases = task.window or 1000
    given = max(len(sequence) for sequence in tables["train"].sequences)
    origin = ""
    if num_bases > given:
        if not options["fasta"]:
            raise UsageError(
                f"task '{task.id}': rows of {given:,} bases are extended from the genome; set fasta=hg19.fa."
            )
        genome = Genome(options["fasta"])
        tables, num_lost = extend_tables(tables, genome, num_bases, as_published=options["published"])
        lost = "kept at 1,000 bases" if options["published"] else "left out"
        origin = f"{task.split_rule}; {num_lost:,} rows without one place in the genome {lost}"
    return write_task(task, output, tables, options, sources=paths, origin=origin)


def extend_tables(
    tables: Mapping[str, RawTable], genome: Genome, num_bases: int, *, as_published: bool
) -> tuple[dict[str, RawTable], int]:
    """Replace each sequence by a longer window around its place in the genome.

    Returns:
        The tables, and the number of rows without exactly one place.

    Raises:
        InputError: nothing is found at all.
    """
    every = [sequence for table in tables.values() for sequence in table.sequences]
    places = dict(zip(every, find_places(every, genome)))
    if not any(places.values()):
        raise InputError(f"{genome.path}: none of the {len(every):,} sequences is in this genome; DeepSEA needs hg19.")
    extended, num_lost = {}, 0
    for name, table in tables.items():
        kept, sequences = [], []
        for row, sequence in enumerate(table.sequences):
            place = places[sequence]
            num_lost += place is None
            if place is not None:
                kept.append(row)
                sequences.append(widen(genome, place, num_bases, shift=int(as_published)))
            elif as_published:
                kept.append(row)
                sequences.append(sequence)
        picked = table.take(kept)
        names = [str(places[table.sequences[row]] or "not found") for row in kept]
        extended[name] = make_rows(sequences, picked.labels, source=table.source, names=names)
    return extended, num_lost


def widen(genome: Genome, place: Interval, num_bases: int, *, shift: int = 0) -> str:
    """Read a window of ``num_bases`` with the place in its middle, on its strand; N beyond the chromosome."""
    start = place.start + place.length // 2 - num_bases // 2 + shift
    return genome.fetch_padded(place.chrom, start, start + num_bases, place.strand).upper()


def find_places(sequences: Sequence[str], genome: Genome) -> list[Interval | None]:
    """Find where each sequence stands in a genome, letter by letter, on either strand.

    One pass over the genome looks for the first 32 bases without N of each sequence; hits are then compared whole.

    Returns:
        The place of each sequence, or None if it has none or several, or no 32 bases without N.
    """
    anchors, offsets = zip(*(_anchor(sequence) for sequence in sequences)) if sequences else ((), ())
    codes = np.array([code for code in anchors if code is not None], dtype=np.uint64)
    wanted = np.unique(codes)
    rows_of: dict[int, list[int]] = {}
    for row, code in enumerate(anchors):
        if code is not None:
            rows_of.setdefault(int(code), []).append(row)
    found: list[set[Interval]] = [set() for _ in sequences]
    for chrom, start, code in _hits(genome, wanted):
        for row in rows_of[code]:
            place = _whole_match(sequences[row], offsets[row], genome, chrom, start)
            if place is not None and len(found[row]) < 2:
                found[row].add(place)
    return [next(iter(places)) if len(places) == 1 else None for places in found]


def _anchor(sequence: str) -> tuple[int | None, int]:
    """Give the code of the first 32-mer without N, and where it starts."""
    codes, starts = canonical_words(np.frombuffer(sequence.encode(), dtype=np.uint8), ANCHOR)
    return (int(codes[0]), int(starts[0])) if len(codes) else (None, 0)


def _hits(genome: Genome, wanted: np.ndarray) -> Iterator[tuple[str, int, int]]:
    """Give chromosome, start and code of every 32-mer of the genome that is wanted."""
    if not len(wanted):
        return
    for chrom, length in genome.contigs.items():
        for first in range(0, length, _STEP):
            text = genome.fetch(chrom, first, min(length, first + _STEP + ANCHOR - 1))
            codes, starts = canonical_words(np.frombuffer(text.encode(), dtype=np.uint8), ANCHOR)
            places = np.minimum(np.searchsorted(wanted, codes), len(wanted) - 1)
            hit = wanted[places] == codes
            for code, start in zip(codes[hit].tolist(), starts[hit].tolist()):
                yield chrom, first + start, code


def _whole_match(sequence: str, offset: int, genome: Genome, chrom: str, start: int) -> Interval | None:
    """Compare a whole sequence whose anchor (at ``offset``) may stand at ``start``, on both strands."""
    length = len(sequence)
    for strand, first in (("+", start - offset), ("-", start + ANCHOR + offset - length)):
        if first < 0 or first + length > genome.contigs[chrom]:
            continue
        text = genome.fetch(chrom, first, first + length).upper()
        if (text if strand == "+" else reverse_complement(text)) == sequence:
            return Interval(chrom, first, first + length, strand)
    return None


def read_deepsea(path: Path, split: str, *, max_rows: int = 0, seed: int = 0) -> RawTable:
    """Read one split from a ``.mat`` file or from headerless rows; labels become ``0;1;...``.

    Args:
        path: of the split.
        split: train, valid or test: the names of its arrays.
        max_rows: keep at most so many rows, chosen by ``seed``, in their order; 0: all. A MATLAB 7.3 file is read in
            random stretches of `NEIGHBOURS` rows only, older ones are unpacked whole, text is read to its end with
            no more than ``max_rows`` rows in memory.

    Raises:
        InputError: the file is damaged or has other shapes, or a label is neither 0 nor 1.
        UsageError: a ``.mat`` file of the newer kind (HDF5) without the package h5py.
    """
    if not path.name.endswith(".mat"):
        pairs = _read_text(path)
        chosen = _random_part(pairs, max_rows, seed) if max_rows else list(pairs)
    elif _is_hdf5(path):
        chosen = list(_read_hdf5(path, split, max_rows, seed))
    else:
        chosen = list(_read_mat(path, split, max_rows, seed))
    return make_rows([sequence for sequence, _ in chosen], {"label": [label for _, label in chosen]}, source=path)


def _read_text(path: Path) -> Iterator[tuple[str, str]]:
    for number, (sequence, rest) in enumerate(read_headless(path, NUM_FEATURES), 1):
        label = rest.replace(",", ";").replace(".0", "")
        if len(label) != 2 * NUM_FEATURES - 1 or label.strip("01;"):
            raise InputError(f"{path}, row {number}: a label is neither 0 nor 1.")
        yield sequence.upper(), label


def _random_part(pairs: Iterator[tuple[str, str]], max_rows: int, seed: int) -> list[tuple[str, str]]:
    """Keep a random part of a stream of unknown length, in its order (Vitter 1985, algorithm R)."""
    random = generator(seed, 0, "DeepSEA rows of a text")
    held: list[tuple[int, tuple[str, str]]] = []
    for number, pair in enumerate(pairs):
        if number < max_rows:
            held.append((number, pair))
        elif (place := int(random.integers(number + 1))) < max_rows:
            held[place] = number, pair
    return [pair for _, pair in sorted(held)]


def _is_hdf5(path: Path) -> bool:
    """Say whether a file is HDF5, behind a header of 0, 512, 1,024, ... bytes (MATLAB 7.3 writes 512)."""
    with open(path, "rb") as file:
        for offset in (0, 512, 1024, 2048, 128):
            file.seek(offset)
            if file.read(len(_HDF5)) == _HDF5:
                return True
    return False


def _read_mat(path: Path, split: str, max_rows: int, seed: int) -> Iterator[tuple[str, str]]:
    """Read ``trainxdata`` (rows, 4, 1000) and ``traindata`` (rows, 919) of an older MATLAB file."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    names = _names(split)
    try:
        held = loadmat(path, variable_names=names)
    except (MatReadError, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise InputError(f"{path}: not readable as a MATLAB file ({error}); get it again.") from None
    letters, labels = (held.get(name) for name in names)
    if letters is None or labels is None:
        raise _lacks(path, split)
    _check_shapes(path, letters.shape, labels.shape)
    rows = np.arange(len(labels))
    if max_rows and max_rows < len(rows):
        rows = np.sort(generator(seed, 0, "DeepSEA rows").permutation(rows)[:max_rows])
    for start in range(0, len(rows), _ROWS_STEP):
        part = rows[start : start + _ROWS_STEP]
        yield from _as_text(letters[part], labels[part])


def _read_hdf5(path: Path, split: str, max_rows: int, seed: int) -> Iterator[tuple[str, str]]:
    """Read a MATLAB 7.3 file, whose arrays have their axes in reverse order: (1000, 4, rows) and (919, rows)."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise UsageError(
            f"{path}: a MATLAB 7.3 file needs the package h5py; install it with: pip install 'longstrand[mat]', or "
            "give the headerless CSV of the rows."
        ) from None
    try:
        with h5py.File(path, "r") as file:
            if not all(name in file for name in _names(split)):
                raise _lacks(path, split)
            letters, labels = (file[name] for name in _names(split))
            _check_shapes(path, letters.shape[::-1], labels.shape[::-1])
            for start, end in _stretches(labels.shape[-1], max_rows, seed, _step_of(letters)):
                yield from _as_text(letters[:, :, start:end].transpose(2, 1, 0), labels[:, start:end].T)
    except OSError as error:
        raise InputError(f"{path}: not readable as a MATLAB file ({error}); get it again.") from None


def _names(split: str) -> tuple[str, str]:
    return f"{split}xdata", f"{split}data"


def _lacks(path: Path, split: str) -> InputError:
    return InputError(f"{path}: lacks {' and '.join(_names(split))}; is it the {split} file of DeepSEA?")


def _check_shapes(path: Path, letters: tuple[int, ...], labels: tuple[int, ...]) -> None:
    if len(letters) != 3 or letters[1] != 4 or labels != (letters[0], NUM_FEATURES):
        raise InputError(f"{path}: shapes {letters} and {labels}, expected (rows, 4, 1000) and (rows, 919).")


def _step_of(letters: Any) -> int:
    """Give rows that are read at once: whole chunks of the file, so that none is unpacked twice."""
    chunk = letters.chunks[-1] if letters.chunks else 1
    return int(max(chunk, _ROWS_STEP // chunk * chunk))


def _stretches(num_rows: int, max_rows: int, seed: int, step: int) -> Iterator[tuple[int, int]]:
    """Give the stretches of rows to read: all, or random ones of `NEIGHBOURS` rows that make up ``max_rows``."""
    if not max_rows or max_rows >= num_rows:
        yield from ((start, min(start + step, num_rows)) for start in range(0, num_rows, step))
        return
    size = min(NEIGHBOURS, max(1, max_rows // 10))
    starts = generator(seed, 0, "DeepSEA stretches").permutation(-(-num_rows // size)) * size
    chosen, left = [], max_rows
    for start in starts.tolist():
        end = min(start + size, num_rows, start + left)
        chosen.append((start, end))
        left -= end - start
        if not left:
            break
    yield from sorted(chosen)


def _as_text(letters: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, str]]:
    """Turn one-hot letters (n, 4, bases) in the order A, G, C, T (all zero is N) and labels (n, 919) into text."""
    hot = np.asarray(letters).astype(bool)
    codes = np.where(hot.any(axis=1), hot.argmax(axis=1), 4)
    for row, mark in zip(codes, np.asarray(labels).astype(np.uint8)):
        yield _LETTERS[row].tobytes().decode(), ";".join(map(str, mark.tolist()))
