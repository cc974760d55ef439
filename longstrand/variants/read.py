"""Variants from anywhere, as the lines of a VCF: VCF and BCF files, tables in songlab's names, and written variants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from longstrand.data.rows import is_missing, usual_column
from longstrand.data.tables import TABLES, read_table
from longstrand.errors import InputError, UsageError
from longstrand.genome.fasta import Genome
from longstrand.genome.text import CHROM_NAMES, detect_file, open_bytes
from longstrand.genome.variants import EXAMPLE, parse_variant
from longstrand.genome.vcf import FIXED, MINIMAL, Vcf, VcfRecord, kept_copy, open_vcf
from longstrand.inference.sequences import open_genome

COLUMNS = ("chrom", "pos", "ref", "alt")
NAME = re.compile(r"\w[\w.]*|\S+:[gcnpmr]\.\S+")
"""What is looked up: an ID, or a name such as ``NC_000001.11:g.12345A>G``."""
Cells = dict[str, list[str | None]]


@dataclass(frozen=True)
class Variants:
    """Variants that can be read again and again.

    Attributes:
        vcf: their lines; made up for what is no VCF.
        path: the file, or None.
        extra: further columns of a table, one value a record.
    """

    vcf: Vcf
    path: Path | None = None
    extra: Cells = field(default_factory=dict)


def genome_of_variants(genome: Genome | str | Path | None) -> Genome:
    """Open the genome that variants lie on.

    Raises:
        UsageError: none is given.
    """
    opened = open_genome(genome)
    if opened is None:
        raise UsageError("variants need the genome that they lie on (--genome, a FASTA file).")
    return opened


def read_variants(variants: str | Path | Sequence[str], *, look_up: str | Path | None = None) -> Variants:
    """Open variants.

    Args:
        variants: path (``-``: standard input) of a VCF or BCF, or of a table with the columns chrom, pos (1-based),
            ref, alt (or ``variant``, as written), perhaps id and others, which are kept; or written variants.
        look_up: VCF in which rsIDs and HGVS names among written variants are found.

    Raises:
        InputError: the file is missing or damaged, or a variant is none.
        UsageError: there is nothing to look up.
    """
    if not isinstance(variants, str | Path):
        texts = list(variants)
        if not all(isinstance(text, str) for text in texts):
            raise UsageError("variants are a path, or a list of texts; write a frame to a file first.")
        return Variants(_of_texts(texts, look_up))
    if look_up is not None:
        raise UsageError(f"{look_up}: looks up IDs of written variants; {variants} is a file, so leave it out.")
    path = kept_copy(variants)
    with open_bytes(path) as stream:
        is_vcf = stream.peek(5).removeprefix(b"\xef\xbb\xbf").startswith((b"BCF", b"##"))  # however wrong the rest
    return _of_table(path) if not is_vcf and detect_file(path) in TABLES else Variants(open_vcf(path), path)


def _of_texts(texts: list[str], look_up: str | Path | None) -> Vcf:
    names = {text.strip() for text in texts if look_up is not None and NAME.fullmatch(text.strip())}
    if look_up is not None and not names:
        raise UsageError(f"{look_up}: looks up IDs and HGVS names, and no variant is written as one; leave it out.")
    found = {} if look_up is None else _find_names(names, look_up)
    missing = sorted(names - set(found))
    if missing:
        raise InputError(
            f"{look_up}: no record has '{missing[0]}' in ID or INFO ({len(missing)} of {len(names)} missing)."
        )
    records: list[VcfRecord] = []
    for number, text in enumerate(texts, 1):
        if (name := text.strip()) in found:
            records += [VcfRecord(number, cells) for cells in found[name]]
        else:
            variant = parse_variant(text)
            cells = [variant.chrom, str(variant.start + 1), ".", variant.ref, variant.alt]
            records.append(_record(number, cells))
    return Vcf(Path("variants"), MINIMAL, list(FIXED), records)


def _find_names(names: set[str], path: str | Path) -> dict[str, list[list[bytes]]]:
    found: dict[str, list[list[bytes]]] = {}
    for record in open_vcf(path):
        known = {*record.id.split(";"), *(one for value in record.info.values() for one in value.split(","))}
        for name in names & known:
            found.setdefault(name, []).append(record.cells[:8])
    return found


def _of_table(path: Path) -> Variants:
    table = read_table(path)
    wanted = (CHROM_NAMES, *((name,) for name in (*COLUMNS[1:], "variant", "id")))
    found = [usual_column(table.columns, usual, path) for usual in wanted]
    *places, written, identifier = [None if place is None else table.columns[place] for place in found]
    if None in places and written is None:
        lacks = ", ".join(name for name, place in zip(COLUMNS, places) if place is None)
        raise InputError(
            f"{path}: no VCF, and as a table it lacks {lacks} (it has {', '.join(table.columns[:20])}); "
            f"name the columns chrom, pos, ref, alt, or give one column 'variant' with texts such as {EXAMPLE}."
        )
    names = [written] if None in places else places
    records = []
    for row, cells in enumerate(table.select([name for name in names if name]).iter_rows(), 1):
        if any(map(is_missing, cells)):
            raise InputError(f"{path}: row {row}: a cell of {', '.join(map(str, names))} is empty.")
        cells = tuple(cell.strip() for cell in cells)
        if len(cells) == 1:
            try:
                variant = parse_variant(cells[0])
            except InputError as error:
                raise InputError(f"{path}: row {row}: {error}") from None
            cells = (variant.chrom, str(variant.start + 1), variant.ref, variant.alt)
        if not cells[1].encode().isdigit():
            raise InputError(
                f"{path}: row {row}: pos is '{cells[1]}'; it is the 1-based position of the first base of ref."
            )
        named = table[row - 1, identifier] if identifier else None
        records.append(_record(row, [cells[0], cells[1], named or ".", *cells[2:]]))
    used = {*names, identifier}
    extra = {name: table[name].to_list() for name in table.columns if name not in used}
    return Variants(Vcf(path, MINIMAL, list(FIXED), records), path, extra)


def _record(line: int, cells: Sequence[str]) -> VcfRecord:
    return VcfRecord(line, [cell.encode() for cell in (*cells, ".", ".", ".")])
