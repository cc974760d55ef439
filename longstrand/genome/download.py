"""Download a file once: resumed where it was cut off, kept in the cache with the checksum of what came."""

from __future__ import annotations

import hashlib
import logging
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from longstrand.errors import InputError
from longstrand.runtime import Notice, cache_dir, progress_bar, take_lock, write_atomically

logger = logging.getLogger(__name__)
BLOCK = 1 << 16
TIMEOUT = 30.0
AT_ONCE = 4


def is_address(path: Path) -> bool:
    """Say whether a path is the address of a file elsewhere, as https://host/genome.fa.gz (a path keeps one slash)."""
    return path.parts[:1] in (("http:",), ("https:",), ("ftp:",))


def local_copies(paths: Sequence[Path]) -> list[Path]:
    """Download addresses into the cache, a few at a time; other paths and what is there already are given as they are.

    Processes that come at once wait for the first. A checksum is compared when a file has just come, not later.

    Raises:
        InputError: some cannot be downloaded; all are named, and the next call goes on with what is missing.
    """
    remote = list(dict.fromkeys(path for path in paths if is_address(path)))
    faults = list[str]()
    copies = dict[Path, Path]()
    with ThreadPoolExecutor(AT_ONCE) as pool, progress_bar("downloading", total=len(remote), unit="files") as bar:
        for path, copy in zip(remote, pool.map(_copy_of, remote)):
            bar.update(1)
            if isinstance(copy, Path):
                copies[path] = copy
            else:
                faults.append(str(copy))
    if faults:
        raise InputError(" ".join(faults))
    return [copies.get(path, path) for path in paths]


def _copy_of(path: Path) -> Path | InputError:
    url = path.as_posix().replace(":/", "://", 1)
    folder = cache_dir() / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with closing(take_lock(folder / ".lock", None)):
            made = folder / path.name
            return made if made.exists() else fetch(url, folder)
    except InputError as error:
        return error
    except OSError as error:
        return InputError(
            f"{url}: cannot be kept in {folder} ({error.strerror}); set LONGSTRAND_CACHE to another folder."
        )


def fetch(url: str, folder: Path, *, notice: Notice = logger.info) -> Path:
    """Return the file of an address, from ``folder`` if it is there, else downloaded.

    What has come so far is in ``NAME.part``, and the next call asks for the rest. ``NAME.sha256`` holds the checksum of
    the first complete download; it says whether the file has changed since, not whether the sender meant it.

    Raises:
        InputError: the address does not answer, the file is shorter than promised, or it has changed on disk.
    """
    path = folder / url.rsplit("/", 1)[-1]
    kept, part = path.with_name(f"{path.name}.sha256"), path.with_name(f"{path.name}.part")
    if path.exists() and kept.exists():
        if _checksum(path) != kept.read_text().split()[0]:
            raise InputError(f"{path}: differs from what was downloaded ({kept.name}); delete it and download again.")
        return path
    folder.mkdir(parents=True, exist_ok=True)
    notice(f"downloading {url}")
    try:
        _receive(url, part)
    except (OSError, urllib.error.URLError) as error:
        raise InputError(
            f"{url}: cannot be downloaded ({error}); the same command goes on where it stopped, or get the file in "
            "another way and give its path."
        ) from None
    write_atomically(kept, f"{_checksum(part)}  {path.name}\n")
    part.replace(path)
    return path


def _receive(url: str, part: Path) -> None:
    """Append what is missing to ``part``.

    Raises:
        OSError: the connection failed or ended early.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        whole = error.headers.get("Content-Range", "").rpartition("/")[2]
        if whole == str(have):
            return
        part.unlink()
        answer, have = urllib.request.urlopen(url, timeout=TIMEOUT), 0
    with answer, open(part, "ab" if answer.status == 206 else "wb") as file:
        before = have if answer.status == 206 else 0
        length = answer.headers.get("Content-Length")
        while block := answer.read(BLOCK):
            file.write(block)
        if length is not None and file.tell() != before + int(length):
            raise OSError(f"{file.tell():,} of {before + int(length):,} bytes came")


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
