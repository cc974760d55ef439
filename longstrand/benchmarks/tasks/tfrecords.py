"""TFRecord files as Basenji and Enformer publish them, read without TensorFlow."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from longstrand.errors import InputError

_BYTES_FIELD = 2


def read_records(path: Path) -> Iterator[dict[str, bytes]]:
    """Give the byte features of every example of a zlib-compressed TFRecord file.

    The check sums of the records are not compared; zlib checks the whole file.

    Raises:
        InputError: the file is missing, truncated or not of this kind.
    """
    try:
        data = zlib.decompress(Path(path).read_bytes())
    except (OSError, zlib.error) as error:
        raise InputError(f"{path}: not readable as a compressed TFRecord file ({error}); get it again.") from None
    place = 0
    while place < len(data):
        if place + 12 > len(data):
            raise InputError(f"{path}: the file ends within a record; get it again.")
        (size,) = struct.unpack_from("<Q", data, place)
        start = place + 12
        if start + size + 4 > len(data):
            raise InputError(f"{path}: the file ends within a record; get it again.")
        yield _byte_features(data[start : start + size])
        place = start + size + 4


def _byte_features(message: bytes) -> dict[str, bytes]:
    """Read an Example message: features (1) -> map entries (1) -> key (1), value (2) -> bytes list (1) -> bytes (1)."""
    features = {}
    for _, block in _fields(message):
        for _, entry in _fields(block):
            parts = dict(_fields(entry))
            for kind, values in _fields(parts.get(2, b"")):
                if kind == 1:
                    features[parts[1].decode()] = next((value for _, value in _fields(values)), b"")
    return features


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Give number and content of every length-delimited field of a protobuf message; others do not occur here."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        size, place = _varint(message, place)
        if tag & 7 != _BYTES_FIELD or place + size > len(message):
            raise InputError("a record holds something else than byte strings; it is no Basenji record.")
        yield tag >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message):
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise InputError("a record ends within a number; it is no Basenji record.")
