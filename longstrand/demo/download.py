"""Download a file once: resumed where it was cut off, kept in the cache with the checksum of what came."""

from __future__ import annotations

import hashlib
import logging
import urllib.error
import urllib.request
from pathlib import Path

from longstrand.errors import InputError
from longstrand.runtime import Notice, write_atomically

logger = logging.getLogger(__name__)
BLOCK = 1 << 16
TIMEOUT = 30.0


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
            "another way and give --genome and --annotation."
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
