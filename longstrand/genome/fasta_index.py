"""Keep the index of a FASTA file in the cache, with a plain copy where one is needed.

A plain FASTA with even lines that end in LF is read in place; anything else (gzip, bgzip, zstd, uneven lines, carriage
returns, another encoding) is copied once into the cache as a plain FASTA with one line per record. Nothing is ever
written beside the genome.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import numpy as np

from longstrand.errors import InputError
from longstrand.genome.fasta_scan import Contig, FastaIndex, scan_fasta
from longstrand.genome.text import KINDS, detect_file, is_packed, open_text
from longstrand.runtime import cache_dir

logger = logging.getLogger(__name__)

FORMAT_VERSION = 5
_BLOCK = 1 << 22
COPY_NAME = "sequence.fa"
INDEX_NAME = "index.json"
GAPS_NAME = "gaps.npy"


def index_fasta(path: Path) -> FastaIndex:
    """Find the index of a FASTA file in the cache, or scan the file and keep it there.

    The cache entry is keyed by absolute path, size, and the times of the last change of content and of state (which no
    copying tool sets back), and a file that changes during the scan is refused. Processes that come at once wait for
    the first (without locks all scan, and the first to end is kept); an interrupted or failed scan leaves nothing
    behind that a later one would use.

    Raises:
        InputError: the file is missing, not FASTA, damaged, or the cache disk is full.
    """
    source, key = find_fasta(path)
    folder = cache_dir() / "genomes"
    entry = folder / key
    found = _read_entry(entry, source)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / f"{key}.lock") as locked:
            found = _read_entry(entry, source)
            if found is None:
                logger.info("indexing %s (once; kept in %s)", source, entry)
                for stale in folder.glob(f".tmp-{key}-*") if locked else ():
                    shutil.rmtree(stale, ignore_errors=True)
                _build_entry(source, entry)
                found = _read_entry(entry, source)
    except OSError as error:
        raise InputError(
            f"{source}: its index cannot be written to the cache {folder} ({error.strerror or error}); "
            "free some space or set LONGSTRAND_CACHE to another folder."
        ) from error
    if found is None:
        raise InputError(f"{source}: its index in the cache {entry} cannot be read back; check the disk.")
    return found


def find_fasta(path: Path | str) -> tuple[Path, str]:
    """Find a file and the key of its index in the cache, which changes whenever the file does; it is not opened.

    Raises:
        InputError: the file is missing, cannot be read, or is a folder.
    """
    path = Path(path).expanduser()
    try:
        source = path.resolve(strict=True)
        status = source.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the path of a FASTA file (.fa, .fa.gz).") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    if not os.access(source, os.R_OK):
        raise InputError(f"{path}: cannot be read (permission denied).")
    if not source.is_file():
        raise InputError(f"{path}: a FASTA file is needed, this is a folder or a device.")
    identity = f"{source}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0{FORMAT_VERSION}"
    return source, hashlib.sha256(identity.encode()).hexdigest()[:32]


def _build_entry(source: Path, entry: Path) -> None:
    """Scan ``source`` into a temporary folder and rename it to ``entry``, unless another process was first."""
    temporary = entry.parent / f".tmp-{entry.name}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        if (kind := detect_file(source)) != "fasta":
            raise InputError(
                f"{source}: not a FASTA file but {KINDS[kind]}; a header line beginning with '>' is missing."
            )
        before = source.stat()
        index = _scan_into(source, temporary)
        if source.stat().st_ctime_ns != before.st_ctime_ns:
            raise InputError(f"{source}: the file changed while it was being read; start again with the new file.")
        with open(temporary / GAPS_NAME, "wb") as file:
            np.save(file, np.concatenate([*index.gaps.values()]))
            _sync(file)
        with open(temporary / INDEX_NAME, "w", encoding="utf-8") as text:
            text.write(_index_text(source, index, temporary))
            _sync(text)
        try:
            os.replace(temporary, entry)
        except OSError:  # something is there: damaged, or where there are no locks that of a process that was first
            if _read_entry(entry, source) is None:
                shutil.rmtree(entry)
                os.replace(temporary, entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _scan_into(source: Path, folder: Path) -> FastaIndex:
    """Scan in place if the file is plain and even, else while writing a copy into ``folder``."""
    if not is_packed(source):
        with open(source, "rb") as file:
            index = scan_fasta(iter(lambda: file.read(_BLOCK), b""), source)
        if index is not None:
            return index
    with open_text(source, errors="replace") as text, open(folder / COPY_NAME, "wb") as copy:
        index = scan_fasta((block.encode() for block in iter(lambda: text.read(_BLOCK), "")), source, copy)
        _sync(copy)
    assert index is not None
    return index


def _index_text(source: Path, index: FastaIndex, folder: Path) -> str:
    copy = folder / COPY_NAME
    return json.dumps(
        {
            "format": FORMAT_VERSION,
            "source": str(source),
            "copy_size": copy.stat().st_size if copy.exists() else None,
            "fingerprint": index.fingerprint,
            "contigs": index.contigs,
            "num_gaps": [len(gaps) for gaps in index.gaps.values()],
            "descriptions": index.descriptions,
        }
    )


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _read_entry(entry: Path, source: Path) -> FastaIndex | None:
    """Read a cache entry; None if it is absent, of another format, or its copy is not whole."""
    try:
        stored = json.loads((entry / INDEX_NAME).read_text(encoding="utf-8"))
        if stored["format"] != FORMAT_VERSION or stored["source"] != str(source):
            return None
        if stored["copy_size"] is not None and (entry / COPY_NAME).stat().st_size != stored["copy_size"]:
            return None
        contigs = {name: Contig(*fields) for name, fields in stored["contigs"].items()}
        borders = [0, *accumulate(stored["num_gaps"])]
        together = np.load(entry / GAPS_NAME, mmap_mode="r")
        if len(borders) != len(contigs) + 1 or together.shape != (borders[-1], 2):
            return None
        gaps = {name: together[start:end] for name, start, end in zip(contigs, borders, borders[1:])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    path = source if stored["copy_size"] is None else entry / COPY_NAME
    return FastaIndex(path, contigs, gaps, stored["fingerprint"], stored["descriptions"])


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Hold a file lock between processes; where the file system has none, go on without and say so."""
    import fcntl

    with open(path, "a") as file:
        locked = False
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
            locked = True
        yield locked
