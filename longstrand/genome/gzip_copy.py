"""Open plain, gzip and bgzip files alike, with errors a user can act on."""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from longstrand.errors import InputError

_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


@contextlib.contextmanager
def open_packed(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacking gzip and bgzip (told by content, not by name).

    Raises:
        InputError: the file cannot be read; or, while it is read, the gzip stream is truncated or damaged.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    with file:
        if not is_gzip(file):
            yield file
            return
        _check_bgzip_end(file, path)
        file.seek(0)
        try:
            with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                yield cast(IO[bytes], stream)
        except EOFError:
            raise InputError(
                f"{path}: the gzip file ends too early (truncated download or copy?); get it again."
            ) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: the gzip file is damaged ({error}); get it again.") from None


def is_gzip(file: IO[bytes]) -> bool:
    """Say whether an open file is gzip or bgzip; it is left at its start."""
    magic = file.read(2)
    file.seek(0)
    return magic == b"\x1f\x8b"


def _check_bgzip_end(file: IO[bytes], path: Path) -> None:
    """Refuse a bgzip file without its end marker: cut at a block border it would unpack without an error."""
    head = file.read(18)
    if len(head) == 18 and head[3] & 4 and head[12:14] == b"BC":
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(_BGZF_END)))
        if file.read() != _BGZF_END:
            raise InputError(f"{path}: the bgzip file has no end marker (truncated download or copy?); get it again.")
