"""VCF as text that is kept: records are lines of which the alleles are read and the rest is passed on byte for byte.

Plain, gzip, bgzip and zstd files are told by content; ``-`` is the standard input. BCF is turned into text by pysam,
the only thing here that rewrites numbers; pysam also packs and indexes.
"""

from __future__ import annotations

import atexit
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longstrand.errors import InputError
from longstrand.genome.fasta import Genome, match_contigs
from longstrand.genome.text import open_bytes
from longstrand.genome.variants import Variant, judge

FIXED = (b"#CHROM", b"POS", b"ID", b"REF", b"ALT", b"QUAL", b"FILTER", b"INFO")
MINIMAL = [b"##fileformat=VCFv4.3"]
WRONG_BUILD = 0.1
"""Share of wrong REF alleles above which the genome is probably another build."""
_SHOWN = 3
_HEADER_ID = re.compile(rb"##(\w+)=<(?:[^\"]*,)?ID=([^,>]+)")


@dataclass(frozen=True, slots=True)
class VcfRecord:
    """One line of a VCF.

    Attributes:
        line: number of the line in the file, from 1.
        cells: CHROM to INFO and, as one, all that follows.
    """

    line: int
    cells: list[bytes]

    @property
    def chrom(self) -> str:
        """Contig, as the VCF calls it."""
        return self.cells[0].decode(errors="replace")

    @property
    def start(self) -> int:
        """0-based position of the first base of REF; -1 for POS 0."""
        return int(self.cells[1]) - 1

    @property
    def id(self) -> str:
        """The ID column; ``.`` is none."""
        return self.cells[2].decode(errors="replace")

    @property
    def ref(self) -> str:
        """REF as written."""
        return self.cells[3].decode(errors="replace")

    @property
    def alts(self) -> list[str]:
        """The ALT alleles as written; ``["."]`` is none."""
        return self.cells[4].decode(errors="replace").split(",")

    @property
    def info(self) -> dict[str, str]:
        """The INFO column; flags have an empty value."""
        pairs = (entry.partition("=") for entry in self.cells[7].decode(errors="replace").split(";"))
        return {name: value for name, _, value in pairs if name != "."}

    def text(self, info: Sequence[bytes] = ()) -> bytes:
        """Give the line with entries added to INFO, all else as it was."""
        if not info:
            return b"\t".join(self.cells) + b"\n"
        added = b";".join([entry for entry in (self.cells[7],) if entry not in (b".", b"")] + list(info))
        return b"\t".join([*self.cells[:7], added, *self.cells[8:]]) + b"\n"

    def split(self, alt: int) -> VcfRecord:
        """Give the record with one of its ALT alleles alone; other columns are those of the whole record."""
        return VcfRecord(self.line, [*self.cells[:4], self.cells[4].split(b",")[alt], *self.cells[5:]])


@dataclass(frozen=True)
class Vcf:
    """A VCF that can be read again and again.

    Attributes:
        path: the file, for messages and for reading.
        header: the lines that begin with ``##``.
        columns: names in the line ``#CHROM``.
        records: the lines, if they do not come from the file.
    """

    path: Path
    header: list[bytes]
    columns: list[bytes]
    records: list[VcfRecord] | None = None

    @property
    def samples(self) -> list[str]:
        """Names of the samples, in the order of the columns."""
        return [name.decode(errors="replace") for name in self.columns[9:]]

    def declared(self, kind: bytes) -> dict[str, bytes]:
        """Give the header lines of one kind (``INFO``, ``contig``) by ID."""
        found = ((_HEADER_ID.match(line), line) for line in self.header)
        return {match[2].decode(): line for match, line in found if match and match[1] == kind}

    def __iter__(self) -> Iterator[VcfRecord]:
        """Read the records.

        Raises:
            InputError: a line has another number of columns, a position that is no number, or no REF.
        """
        if self.records is not None:
            yield from self.records
            return
        tabs, checked = len(self.columns) - 1, False
        for number, line in _lines(self.path):
            if line.startswith(b"#"):
                checked = True
            elif line and checked:
                if line.count(b"\t") != tabs:
                    raise InputError(f"{self.path}:{number}: {_columns_wrong(line, tabs + 1)}.")
                cells = line.split(b"\t", 8)
                if not cells[1].isdigit():
                    raise InputError(f"{self.path}:{number}: POS is {cells[1][:20].decode(errors='replace')!r}.")
                if not cells[3]:
                    raise InputError(f"{self.path}:{number}: REF is empty; VCF writes the base before an insertion.")
                yield VcfRecord(number, cells)


def open_vcf(path: Path | str) -> Vcf:
    """Read the header of a VCF or BCF file, or of the standard input (``-``), which is kept in a temporary file.

    Raises:
        InputError: the file is missing, empty or damaged, is no VCF, or its header is incomplete.
    """
    path = kept_copy(path)
    header: list[bytes] = []
    for number, line in _lines(path):
        if line.startswith(b"##"):
            header.append(line)
            continue
        if not line.startswith(b"#"):
            what = "the line #CHROM" if header else "the header (##fileformat=VCF..., then the line #CHROM)"
            raise InputError(f"{path}:{number}: {what} is missing before the first record.")
        columns = line.split(b"\t")
        fixed = (*FIXED, b"FORMAT")[: max(8, len(columns))]
        if tuple(columns[:9]) != fixed:
            missing = [name.decode() for name in fixed if name not in columns]
            raise InputError(
                f"{path}:{number}: the line #CHROM lacks {', '.join(missing) or 'the order of the columns'}; VCF has "
                f"{' '.join(name.decode() for name in fixed)}, separated by tabs."
            )
        twice = [name.decode() for name, count in Counter(columns[9:]).items() if count > 1]
        if twice:
            raise InputError(f"{path}:{number}: sample '{twice[0]}' occurs twice; give every sample its own name.")
        return Vcf(path, header, columns)
    if header:
        raise InputError(f"{path}: the line #CHROM is missing.")
    raise InputError(f"{path}: the file is empty.")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number the lines of a VCF, without line ends and mark of encoding; a BCF as text."""
    with open_bytes(path) as stream:
        if stream.peek(3)[:3] == b"BCF":
            yield from enumerate(_bcf_lines(path), 1)
            return
        for number, line in enumerate(stream, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
                if b"\0" in line:
                    raise InputError(f"{path}: no VCF; a VCF is text in UTF-8 that begins with ##fileformat=VCF.")
            yield number, line.rstrip(b"\r\n")


def _bcf_lines(path: Path) -> Iterator[bytes]:
    import pysam

    pysam.set_verbosity(0)  # our errors say what is wrong
    try:
        with pysam.VariantFile(str(path)) as file:
            yield from str(file.header).encode().splitlines()
            yield from (str(record).rstrip("\n").encode() for record in file)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the BCF file is damaged or truncated ({error}); get it again.") from None


def kept_copy(path: Path | str) -> Path:
    """Give the path of a file that can be read again and again: of standard input (``-``) and of a pipe, a copy."""
    if str(path) != "-" and not Path(path).expanduser().is_fifo():
        return Path(path).expanduser()
    folder = Path(tempfile.mkdtemp(prefix="longstrand-vcf-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / ("standard_input" if str(path) == "-" else "pipe")
    with open(path, "rb") if str(path) != "-" else nullcontext(sys.stdin.buffer) as source, open(copy, "wb") as file:
        shutil.copyfileobj(source, file)
    return copy


def _columns_wrong(line: bytes, expected: int) -> str:
    if b"\t" not in line and len(line.split()) >= min(expected, 5):
        return "the columns are separated by spaces; VCF wants tabs"
    return f"{line.count(bytes([9])) + 1} columns, but the line #CHROM names {expected}"


@dataclass
class Survey:
    """What a pass over a VCF and its genome has found.

    Attributes:
        contigs: name in the VCF to name in the genome; None where the genome has no such contig.
        num_records: lines.
        statuses: how many alleles have each status, ``ok`` or a key of `longstrand.genome.variants.SKIPPED`.
    """

    contigs: dict[str, str | None]
    num_records: int = 0
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def num_alleles(self) -> int:
        """ALT alleles, and records without any."""
        return sum(self.statuses.values())


def survey(vcf: Vcf, genome: Genome, *, skip: bool = False) -> Survey:
    """Read a VCF and judge all its alleles.

    Contigs are found by their own names; if none is, `match_contigs` finds them by their other usual names.

    Args:
        vcf: the file.
        genome: what it belongs to.
        skip: wrong REF alleles and unknown contigs are counted only.

    Raises:
        InputError: a REF is wrong or a contig unknown; the first ones are named with their lines, and how many.
    """
    found, wrong = _survey(vcf, genome, Survey({}))
    if found.contigs and not any(found.contigs.values()):
        twins = match_contigs(found.contigs, genome.contigs, vcf.path)
        if twins:
            found, wrong = _survey(vcf, genome, Survey(dict.fromkeys(found.contigs) | twins))
    if wrong and not skip:
        counts = ", ".join(
            f"{found.statuses[key]:,} {name}"
            for key, name in (("ref_mismatch", "with a wrong REF"), ("unknown_contig", "on unknown contigs"))
            if found.statuses[key]
        )
        known = found.num_alleles - found.statuses["unknown_contig"]
        build = " Wrong genome build?" if found.statuses["ref_mismatch"] > WRONG_BUILD * known else ""
        raise InputError(
            f"{' '.join(wrong)} Of {found.num_alleles:,} alleles: {counts}.{build} Give the genome of this VCF, or "
            "pass --mismatch skip to go on without these."
        )
    return found


def _survey(vcf: Vcf, genome: Genome, found: Survey) -> tuple[Survey, list[str]]:
    """Fill a survey; give the first records that do not fit, in words."""
    wrong: list[str] = []
    for record in vcf:
        found.num_records += 1
        chrom = record.chrom
        if chrom not in found.contigs:
            found.contigs[chrom] = chrom if chrom in genome.contigs else None
        statuses = [status for _, status in judged(record, genome, found.contigs)]
        found.statuses.update(statuses)
        if len(wrong) < _SHOWN and ("unknown_contig" in statuses or "ref_mismatch" in statuses):
            wrong.append(_wrong(vcf, record, genome, found.contigs[chrom]))
    return found, wrong


def judged(record: VcfRecord, genome: Genome, contigs: dict[str, str | None]) -> list[tuple[Variant, str]]:
    """Give each ALT of a record, in upper case on a contig of the genome, and ``ok`` or why it cannot be scored."""
    chrom, start, ref = contigs[record.chrom] or "", record.start, record.ref
    return [(Variant(chrom, start, ref.upper(), alt.upper()), judge(genome, chrom, start, ref, alt) or "ok")
            for alt in record.alts]  # fmt: skip


def _wrong(vcf: Vcf, record: VcfRecord, genome: Genome, chrom: str | None) -> str:
    where = f"{vcf.path}:{record.line}:"
    if chrom is None:
        known = ", ".join(list(genome.contigs)[:5]) + (" ..." if len(genome.contigs) > 5 else "")
        return (
            f"{where} contig '{record.chrom}' (position {record.start + 1}, {record.ref}>{','.join(record.alts)}) is "
            f"not in {genome.path.name}, which has {known}."
        )
    found = genome.fetch(chrom, record.start, record.start + len(record.ref))
    return (
        f"{where} REF is '{record.ref}' (ALT '{','.join(record.alts)}') but {chrom}:{record.start + 1} in "
        f"{genome.path.name} is '{found}'."
    )


class VcfWriter:
    """A VCF that is written line by line; the ending decides: ``.vcf``, ``.vcf.gz`` (bgzip and an index), ``.bcf``.

    Attributes:
        without_index: why there is no index, or None.
    """

    def __init__(self, path: Path, name: str, header: Iterable[bytes], columns: Sequence[bytes]) -> None:
        """Open the file and write the header.

        Args:
            path: where it is written, perhaps under a temporary name.
            name: its final name, whose ending decides; the index gets this name, too.
            header: lines that begin with ``##``.
            columns: cells of the line ``#CHROM``.
        """
        self.without_index: str | None = None
        self._path, self._final, self._kind = path, path.with_name(name), vcf_ending(name)
        self._text = path.with_name(path.name + ".text") if self._kind == ".bcf" else path
        self._out: Any = _packed(path) if self._kind == ".vcf.gz" else open(self._text, "wb")  # noqa: SIM115
        lines = [*header, b"\t".join(columns)]
        lines = lines if any(line.startswith(b"##fileformat=") for line in lines) else [*MINIMAL, *lines]
        self._out.write(b"".join(line + b"\n" for line in lines))
        self._contigs: set[bytes] = set()
        self._last, self._sorted = (b"", -1), True

    def write(self, record: VcfRecord, info: Sequence[bytes] = ()) -> None:
        """Write a record with entries added to INFO."""
        self._out.write(record.text(info))
        chrom, start = record.cells[0], record.start
        self._sorted &= start >= self._last[1] if chrom == self._last[0] else chrom not in self._contigs
        self._contigs.add(chrom)
        self._last = chrom, start

    def __enter__(self) -> VcfWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        with suppress(OSError):  # left to itself, pysam would print a second error
            self._out.close()

    def close(self) -> None:
        """Finish the file and write its index."""
        index = {end: self._final.with_name(self._final.name + end) for end in (".tbi", ".csi")}
        for old in index.values():
            old.unlink(missing_ok=True)
        self._out.close()
        if self._kind == ".bcf":
            _write_bcf(self._text, self._path, self._final)
        elif self._kind == ".vcf.gz":
            import pysam

            why = "its records are not sorted by contig and position"
            for ending in (".tbi", ".csi") if self._sorted else ():
                with suppress(OSError):  # a position or an END that is too large for this kind of index
                    made = str(index[ending])
                    pysam.tabix_index(str(self._path), preset="vcf", force=True, csi=ending == ".csi", index=made)
                    return
                index[ending].unlink(missing_ok=True)
                why = "a position or an END is larger than an index can hold"
            self.without_index = f"{self._final.name} has no index, because {why}"


def _packed(path: Path) -> Any:
    import pysam

    pysam.set_verbosity(0)  # our errors say what went wrong
    return pysam.BGZFile(str(path), "wb", None)


def _write_bcf(text: Path, path: Path, final: Path) -> None:
    """Turn a VCF into a BCF.

    Raises:
        InputError: BCF cannot hold it.
    """
    from pysam import bcftools, utils

    try:
        bcftools.view("-Ob", "-o", str(path), str(text), catch_stdout=False)
    except utils.SamtoolsError as error:
        raise InputError(
            f"{final}: BCF cannot hold this file: does its header lack an entry of INFO, FILTER or FORMAT, or is a "
            f"letter not UTF-8 ({str(error).strip()})? Use .vcf.gz."
        ) from None
    finally:
        text.unlink()


def vcf_ending(name: str) -> str | None:
    """Give ``.vcf``, ``.vcf.gz`` or ``.bcf`` if a file name ends so, else None."""
    lower = name.lower().removesuffix(".bgz") + (".gz" if name.lower().endswith(".bgz") else "")
    return next((ending for ending in (".vcf.gz", ".vcf", ".bcf") if lower.endswith(ending)), None)
