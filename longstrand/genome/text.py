"""Open any file as bytes or text, whatever its compression, encoding and line ends, and tell what it is by its content.

Every reader of the package stands on `open_bytes`, `open_text` and `detect_file`; nobody else opens a user's file.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, TextIO, cast

from longstrand.errors import InputError
from longstrand.genome.sequence import NUCLEOTIDES

FileKind = Literal["fasta", "table", "lines", "bed", "bedgraph", "gff", "parquet", "xlsx", "json", "vcf", "bigwig"]
_TABLE = tomllib.loads(Path(__file__).with_name("kinds.toml").read_text(encoding="utf-8"))
KINDS: dict[FileKind, str] = _TABLE["kinds"]
"""What a sentence calls each kind of file that some reader of the package reads."""

_MAGIC: dict[bytes, FileKind] = {bytes.fromhex(start): kind for start, kind in _TABLE["magic"].items()}
_FOREIGN = {bytes.fromhex(start): what for start, what in _TABLE["foreign"].items()}
_FOREIGN_TEXT = {re.compile(pattern): what for pattern, what in _TABLE["foreign_text"].items()}
_ENDINGS: dict[FileKind, tuple[str, ...]] = {kind: tuple(ends) for kind, ends in _TABLE["endings"].items()}
_PACKED = (".gz", ".bgz", ".zst")
CHROM_NAMES = ("chrom", "chr", "chromosome", "seqnames")
START_NAMES = ("start", "chromstart", "chrom_start")
END_NAMES = ("end", "chromend", "chrom_end", "stop")
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_HEAD = 1 << 16
_IUPAC = frozenset(NUCLEOTIDES)
_WHOLE = re.compile(r"[ \t]*[+-]?[0-9]+[ \t]*")
_NUMBER = re.compile(r"[ \t]*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t]*")


def parse_whole(text: str) -> int | None:
    """Return a text of decimal digits as a number, else None (``1_2``, ``1e3`` and ``1.0`` are none)."""
    return int(text) if len(text) < 20 and _WHOLE.fullmatch(text) else None


def parse_number(text: str) -> float | None:
    """Return a text as a finite number, else None; the decimal mark is a point, ``1_2`` is a name."""
    value = float(text) if _NUMBER.fullmatch(text) else None
    return None if value in (float("inf"), float("-inf")) else value


def name_kind(path: Path) -> FileKind | None:
    """Return the kind that a file's name promises (``.gz``, ``.bgz``, ``.zst`` may follow), or None."""
    name = Path(path).name.lower()
    for ending in _PACKED:
        name = name.removesuffix(ending)
    return next((kind for kind, endings in _ENDINGS.items() if name.endswith(endings)), None)


def detect_file(path: Path) -> FileKind:
    """Tell what a file is by its content; its name decides only where the content leaves it open.

    The content of a damaged BED or GFF file looks like a table, and that of a bedGraph like BED with a number as name.

    Raises:
        InputError: the file is missing, empty or damaged, or of a kind that nothing here reads, which is named.
    """
    path = Path(path)
    with open_bytes(path) as stream:
        head = stream.read(_HEAD)
    if not head:
        raise InputError(f"{path}: the file is empty.")
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        if _is_workbook(path):
            return "xlsx"
        raise InputError(f"{path}: a ZIP archive; unpack it and give the file inside.")
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"{path}: {what}.")
    encoding = _encoding(head)
    text = head.decode(encoding, errors="replace")
    if "\0" in text:
        odd, even = head[1::2].count(0), head[::2].count(0)
        mark = "UTF-16 without its mark" if max(odd, even) > len(head) // 4 else "a binary file of an unknown kind"
        raise InputError(f"{path}: neither a table nor sequences but {mark}; save it as text in UTF-8.")
    lines = [line for line in re.split(r"\r\n?|\n", text) if line.strip()]
    if not lines:
        raise InputError(f"{path}: the file is empty.")
    return _text_kind(lines[:-1] if len(head) == _HEAD and len(lines) > 1 else lines, path)


def _text_kind(lines: list[str], path: Path) -> FileKind:
    """Tell the kind of a text from its first lines that are not blank."""
    start = "\n".join(lines[:3])
    for pattern, what in _FOREIGN_TEXT.items():
        if pattern.match(start):
            raise InputError(f"{path}: {what}.")
    if start.startswith(">"):
        return "fasta"
    if start.startswith(("##fileformat=VCF", "#CHROM\tPOS\t")):
        return "vcf"
    if start.startswith("##gff-version"):
        return "gff"
    if re.match(r'\s*[\[{]\s*["\[{\]}]', start):
        return "json"
    promised = name_kind(path)
    is_track = [line.startswith("track") and "bedgraph" in line.lower() for line in lines]
    data = next((line for line in lines if not is_comment(line)), lines[0])
    cells = data.split("\t") if "\t" in data else data.split()
    if len(cells) == 9 and parse_whole(cells[3]) and parse_whole(cells[4]) and cells[6] in ("+", "-", ".", "?"):
        return "gff"
    if re.match(r"#\w", start) and lines[0].count("\t") == data.count("\t") > 1 and _names_intervals(lines[0]):
        return "table"
    if len(cells) >= 3 and parse_whole(cells[1]) is not None and parse_whole(cells[2]) is not None:
        return "bedgraph" if any(is_track) or (promised == "bedgraph" and len(cells) == 4) else "bed"
    if promised in ("bed", "bedgraph", "gff", "fasta", "vcf") and not _names_intervals(data):
        return promised
    letters = data.strip().upper()
    if (
        len(letters) > 3
        and not set(letters) - set("ACGTUN")
        and all(_IUPAC.issuperset(line.strip().upper()) for line in lines)
    ):
        return "lines"
    return "table"


def is_comment(line: str) -> bool:
    """Say whether a line of a BED, bedGraph or GFF file holds no interval: ``#``, ``track``, ``browser``."""
    return line.startswith(("#", "track ", "track\t", "browser ", "browser\t")) or line.strip() == "track"


def _names_intervals(line: str) -> bool:
    cells = {cell.strip().strip('"').lower() for cell in re.split(r"[\t,; ]", line.lstrip("#"))}
    return all(cells & set(names) for names in (CHROM_NAMES, START_NAMES, END_NAMES))


def _is_workbook(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.startswith("xl/") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        raise InputError(f"{path}: a truncated or damaged Excel workbook or ZIP archive; get it again.") from None


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading, unpacking gzip, bgzip and zstd (told by content, not by name).

    Raises:
        InputError: the file cannot be read; or, while it is read, the packed stream is truncated or damaged.
    """
    path = Path(path).expanduser()
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    with file:
        magic = file.peek(4)[:4]
        packer = "zstd" if magic == b"\x28\xb5\x2f\xfd" else "gzip"
        try:
            if magic[:2] == b"\x1f\x8b":
                _check_bgzip_end(file, path)
                yield io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=file, mode="rb")))
            elif packer == "zstd":
                yield io.BufferedReader(_Zstd(file), 1 << 17)
            else:
                yield file
        except EOFError:
            raise InputError(
                f"{path}: the {packer} file ends too early (truncated download or copy?); get it again."
            ) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: the {packer} file is damaged ({error}); get it again.") from None


def is_packed(path: Path) -> bool:
    """Say whether a file is not plain UTF-8 without a mark as far as its first bytes show."""
    with open(path, "rb") as file:
        magic = file.read(4)
    return magic[:2] == b"\x1f\x8b" or magic == b"\x28\xb5\x2f\xfd" or _encoding(magic) != "utf-8"


@contextlib.contextmanager
def open_text(path: Path, *, errors: str = "strict") -> Iterator[TextIO]:
    r"""Open a file as text: unpacked, decoded by its mark (else UTF-8), every line ending in ``\n``.

    Args:
        path: the file.
        errors: ``strict``, or ``replace`` where letters other than ASCII stand in remarks only.

    Raises:
        InputError: as `open_bytes`, or a letter is not of the encoding; its line is named.
    """
    with open_bytes(path) as stream:
        text = io.TextIOWrapper(stream, encoding=_encoding(stream.peek(4)[:4]), errors=errors, newline=None)
        try:
            yield text
        except UnicodeError:
            raise InputError(
                f"{path}: {_bad_line(path)} holds a letter that is not UTF-8; save the file as UTF-8."
            ) from None


def _bad_line(path: Path) -> str:
    with open_bytes(path) as stream:
        for line, raw in enumerate(stream, 1):
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError:
                return f"line {line}"
    return "it"


def _encoding(head: bytes) -> str:
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), "utf-8")


class _Zstd(io.RawIOBase):
    """The bytes of a zstd file of one or several frames; unlike the library's own reader it notices a missing end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._frame = self._new_frame()
        self._left = b""
        self._begun = False

    @staticmethod
    def _new_frame() -> Any:
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import zstandard

        while not self._left:
            packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._begun = self._new_frame(), bool(packed)
            packed = packed or self._file.read(1 << 14)
            if not packed:
                if self._begun:
                    raise EOFError
                return 0
            self._begun = True
            try:
                self._left = self._frame.decompress(packed)
            except zstandard.ZstdError as error:
                raise zlib.error(str(error)) from None
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


def _check_bgzip_end(file: IO[bytes], path: Path) -> None:
    """Refuse a bgzip file without its end marker: cut at a block border it would unpack without an error."""
    head = file.read(18)
    if len(head) == 18 and head[3] & 4 and head[12:14] == b"BC":
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(BGZF_END)))
        if file.read() != BGZF_END:
            raise InputError(f"{path}: the bgzip file has no end marker (truncated download or copy?); get it again.")
    file.seek(0)
