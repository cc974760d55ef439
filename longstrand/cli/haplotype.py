"""``longstrand haplotype``: the DNA of a person for a region, with its map to the reference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstrand.cli.options import JsonOption, QuietOption, new_app, show_result

if TYPE_CHECKING:
    from longstrand.genome.haplotypes import Haplotypes, HaplotypeWindow

app = new_app()


@app.command()
def haplotype(
    vcf: Annotated[Path, typer.Argument(help="Phased VCF or BCF with genotypes.")],
    genome: Annotated[Path, typer.Option("--genome", "--fasta", help="Genome of the VCF (FASTA).")],
    sample: Annotated[str, typer.Option(help="Name of the person.")],
    region: Annotated[list[str], typer.Option(help="Region such as chr1:1001-2000, or a contig; may be repeated.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="FASTA file to write.")],
    number: Annotated[int | None, typer.Option("--haplotype", min=1, help="1, 2, ...; by default all.")] = None,
    map: Annotated[Path | None, typer.Option(help="TSV to write: runs that haplotype and reference share.")] = None,
    unphased: Annotated[
        str, typer.Option(help="Heterozygous calls without phase: refuse, first, random, iupac (N) or skip.")
    ] = "refuse",
    missing: Annotated[str, typer.Option(help="Missing calls: ref or N.")] = "ref",
    mismatch: Annotated[str, typer.Option(help="A wrong REF or an unknown contig is an error, or: skip.")] = "error",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the haplotypes of a person: what `samtools faidx | bcftools consensus` 1.24 gives, from an index made once.

    The map has one line for each run: name of the sequence, start in it, contig, start there, length (0-based).
    """
    from longstrand.errors import one_of
    from longstrand.genome.fasta import Genome
    from longstrand.genome.haplotypes import open_haplotypes
    from longstrand.runtime import check_output, write_atomically

    one_of(unphased, ("refuse", "first", "random", "iupac", "skip"), "--unphased")
    one_of(missing, ("ref", "N"), "--missing")
    one_of(mismatch, ("error", "skip"), "--mismatch")
    for path in filter(None, (output, map)):
        check_output(path, [vcf, genome])
    found = open_haplotypes(vcf, Genome(genome), mismatch=mismatch)  # type: ignore[arg-type]
    texts, lines, counts = [], ["name\tstart\tcontig\tcontig_start\tlength"], {"applied": 0, "overlapping": 0}
    for name, chrom, window in _windows(found, sample, region, number, unphased=unphased, missing=missing):
        text = window.sequence
        texts += [f">{name}", *(text[start : start + 60] for start in range(0, len(text), 60))]
        lines += [f"{name}\t{start}\t{chrom}\t{there}\t{size}" for start, there, size in window.blocks.tolist()]
        counts["applied"] += window.num_applied
        counts["overlapping"] += window.num_overlapping
    write_atomically(output, "\n".join(texts) + "\n")
    if map is not None:
        write_atomically(map, "\n".join(lines) + "\n")
    summary = {
        "output": str(output), "sequences": sum(line[0] == ">" for line in texts), **counts, "dropped": found.dropped,
    }  # fmt: skip
    line = f"wrote {summary['sequences']} haplotypes to {output} ({counts['applied']} records applied)"
    notes = [
        f"note: {count:,} records left out: an earlier one changed their place."
        for count in [counts["overlapping"]]
        if count
    ]
    notes += [f"note: {count:,} alleles of the VCF do nothing ({name})." for name, count in found.dropped.items()]
    show_result(summary, [line], [] if json else notes, as_json=json, quiet=quiet)


def _windows(
    found: Haplotypes, sample: str, regions: list[str], number: int | None, **how: Any
) -> Iterator[tuple[str, str, HaplotypeWindow]]:
    """Read regions, or whole contigs, of one or all haplotypes of a person: name, contig, window."""
    from longstrand.errors import UsageError
    from longstrand.report.locus import parse_region

    for word in regions:
        is_contig = ":" not in word or word in found.genome.contigs
        place = found.genome.whole(word) if is_contig else parse_region(word)
        ploidy = found.ploidy(sample, place.chrom)
        if number is not None and number > ploidy:
            raise UsageError(f"--haplotype {number}: '{sample}' has {ploidy} on {place.chrom}.")
        for one in range(1, ploidy + 1) if number is None else [number]:
            window = found.window(place.chrom, place.start, place.end, sample, one, **how)
            yield f"{place}|{sample}|{one}", place.chrom, window
