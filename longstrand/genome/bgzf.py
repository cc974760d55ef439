"""Write bgzip files and their position index: TBI, or CSI for contigs of 2^29 bases and more.

The formats are those of the SAM/VCF specifications (SAMv1 4.1, tabix and CSIv1).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from longstrand.genome.text import BGZF_END

_BLOCK = 0xFF00
_HEAD = struct.pack("<4BI2BH2BH", 31, 139, 8, 4, 0, 0, 255, 6, 66, 67, 2)
_MIN_SHIFT = 14
_TBI_DEPTH = 5
LONGEST_TBI = 1 << 29
"""Contigs of this length and more do not fit a TBI index."""


class BgzfWriter:
    """A bgzip file that is written from front to end; a context manager."""

    def __init__(self, path: Path, level: int = 6) -> None:
        self._file: IO[bytes] = open(path, "wb")  # noqa: SIM115 - closed by `close`
        self._level = level
        self._buffer = bytearray()
        self._written = 0

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._buffer += data
        while len(self._buffer) >= _BLOCK:
            self._flush(_BLOCK)

    def tell(self) -> int:
        """Give the virtual offset of the next byte: that of its block times 2^16, plus the place within it."""
        return self._written << 16 | len(self._buffer)

    def close(self) -> None:
        """Write what is left and the end marker."""
        if self._buffer:
            self._flush(len(self._buffer))
        self._file.write(BGZF_END)
        self._file.close()

    def __enter__(self) -> BgzfWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()

    def _flush(self, size: int) -> None:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        packer = zlib.compressobj(self._level, zlib.DEFLATED, -15)
        packed = packer.compress(data) + packer.flush()
        if len(packed) > 0xFFFF - 26:
            packer = zlib.compressobj(0, zlib.DEFLATED, -15)
            packed = packer.compress(data) + packer.flush()
        self._file.write(_HEAD + struct.pack("<H", len(packed) + 25) + packed)
        self._file.write(struct.pack("<II", zlib.crc32(data), len(data)))
        self._written += len(packed) + 26


class PositionIndex:
    """Where the records of each contig lie in a bgzip VCF, fed record by record in their order.

    Attributes:
        sorted: contigs lie together and positions do not fall; without it there can be no index.
    """

    def __init__(self, longest: int) -> None:
        """Choose the depth of the bins.

        Args:
            longest: bases of the longest contig.
        """
        self.depth = _TBI_DEPTH
        while longest >= 1 << (_MIN_SHIFT + 3 * self.depth):
            self.depth += 1
        self.sorted = True
        self._bins: dict[bytes, dict[int, list[list[int]]]] = {}
        self._linear: dict[bytes, dict[int, int]] = {}
        self._last: tuple[bytes, int] = (b"", -1)

    @property
    def suffix(self) -> str:
        """Ending of the index beside the file."""
        return ".tbi" if self.depth == _TBI_DEPTH else ".csi"

    def add(self, chrom: bytes, start: int, end: int, first: int, last: int) -> None:
        """Note a record of bases ``start`` to ``end - 1`` that lies between two virtual offsets."""
        start, end = max(start, 0), max(end, start + 1, 1)
        if chrom != self._last[0]:
            self.sorted &= chrom not in self._bins
        else:
            self.sorted &= start >= self._last[1]
        self._last = (chrom, start)
        chunks = self._bins.setdefault(chrom, {}).setdefault(self._bin(start, end), [])
        if chunks and chunks[-1][1] == first:
            chunks[-1][1] = last
        else:
            chunks.append([first, last])
        linear = self._linear.setdefault(chrom, {})
        for place in range(start >> _MIN_SHIFT, (end - 1 >> _MIN_SHIFT) + 1):
            linear.setdefault(place, first)

    def _bin(self, start: int, end: int) -> int:
        shift, first = _MIN_SHIFT, ((1 << 3 * self.depth) - 1) // 7
        for level in range(self.depth, 0, -1):
            if start >> shift == end - 1 >> shift:
                return first + (start >> shift)
            shift += 3
            first -= 1 << 3 * (level - 1)
        return 0

    def write(self, path: Path) -> None:
        """Write the index, itself a bgzip file."""
        names = b"".join(chrom + b"\0" for chrom in self._bins)
        columns = struct.pack("<7i", 2, 1, 2, 0, ord("#"), 0, len(names)) + names
        number = struct.pack("<i", len(self._bins))
        with BgzfWriter(path) as out:
            if self.suffix == ".tbi":
                out.write(b"TBI\1" + number + columns)
            else:
                out.write(b"CSI\1" + struct.pack("<3i", _MIN_SHIFT, self.depth, len(columns)) + columns + number)
            for chrom, bins in self._bins.items():
                self._write_contig(out, bins, self._filled(self._linear[chrom]))

    def _write_contig(self, out: BgzfWriter, bins: Mapping[int, list[list[int]]], linear: list[int]) -> None:
        out.write(struct.pack("<i", len(bins)))
        for number, chunks in bins.items():
            out.write(struct.pack("<I", number))
            if self.suffix == ".csi":
                place = min(self._first_base(number) >> _MIN_SHIFT, len(linear) - 1)
                out.write(struct.pack("<Q", linear[place]))
            out.write(struct.pack("<i", len(chunks)))
            for first, last in chunks:
                out.write(struct.pack("<QQ", first, last))
        if self.suffix == ".tbi":
            out.write(struct.pack(f"<i{len(linear)}Q", len(linear), *linear))

    def _first_base(self, number: int) -> int:
        """Give the first base of a bin."""
        first, size, shift = 0, 1, _MIN_SHIFT + 3 * self.depth
        while number >= first + size:
            first, size, shift = first + size, size * 8, shift - 3
        return number - first << shift

    @staticmethod
    def _filled(linear: Mapping[int, int]) -> list[int]:
        """Give each stretch of 2^14 bases the first offset of a record that reaches it, or the one before it."""
        offsets, before = [], 0
        for place in range(max(linear) + 1):
            before = linear.get(place, before)
            offsets.append(before)
        return offsets
