"""DeepSEA's published files: MATLAB files of both kinds and headerless rows, read in pieces, whole or a random part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.benchmarks.tasks.build import make_rows
from longstrand.data.labelled import RawTable
from longstrand.data.rows import read_headless
from longstrand.errors import InputError, UsageError
from longstrand.runtime import generator

NUM_FEATURES = 919

NEIGHBOURS = 100
"""A random part of an HDF5 file is read in stretches of so many rows, so that the rest of the file stays unread."""

_LETTERS = np.frombuffer(b"AGCTN", dtype=np.uint8)
_STEP = 4000
_HDF5 = b"\x89HDF\r\n\x1a\n"


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
    for start in range(0, len(rows), _STEP):
        part = rows[start : start + _STEP]
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
    return int(max(chunk, _STEP // chunk * chunk))


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
