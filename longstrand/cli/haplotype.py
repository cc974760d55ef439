"""``longstrand haplotype``: the DNA of a person for a region, with its map to the reference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from longstrand.cli.options import JsonOption, QuietOption, given, new_app, options_of, show_result
from longstrand.config import build
from longstrand.genome.fasta import Genome
from longstrand.genome.features import write_fasta
from longstrand.genome.haplotypes import CallOptions, Haplotypes, HaplotypeWindow, open_haplotypes

app = new_app()


@app.command()
@options_of(CallOptions)
def haplotype(
    vcf: Annotated[Path, typer.Argument(help="Phased VCF or BCF with genotypes.")],
    genome: Annotated[Path, typer.Option("--genome", "--fasta", help="Genome of the VCF (FASTA).")],
    sample: Annotated[str, typer.Option(help="Name of the person.")],
    region: Annotated[list[str], typer.Option(help="Region such as chr1:1001-2000, or a contig; may be repeated.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="FASTA file to write.")],
    number: Annotated[int | None, typer.Option("--haplotype", min=1, help="1, 2, ...; by default all.")] = None,
    map: Annotated[Path | None, typer.Option(help="TSV to write: runs that haplotype and reference share.")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    **options: Any,
) -> None:
    """Write the haplotypes of a person: what `samtools faidx | bcftools consensus` 1.24 gives, from an index made once.

    The map has one line for each run: name of the sequence, start in it, contig, start there, length (0-based).
    """
    from longstrand.runtime import write_atomically

    how = build(CallOptions, given(options), "options")
    found = open_haplotypes(vcf, Genome(genome), mismatch=how.mismatch)
    texts, lines, counts = {}, ["name\tstart\tcontig\tcontig_start\tlength"], {"applied": 0, "overlapping": 0}
    for name, chrom, window in _windows(found, sample, region, number, how):
        texts[name] = window.sequence
        lines += [f"{name}\t{start}\t{chrom}\t{there}\t{size}" for start, there, size in window.blocks.tolist()]
        counts["applied"] += window.num_applied
        counts["overlapping"] += window.num_overlapping
    write_fasta(output, texts, line_bases=60)
    if map is not None:
        write_atomically(map, "\n".join(lines) + "\n")
    summary = {"output": str(output), "sequences": len(texts), **counts, "dropped": found.dropped}
    line = f"wrote {len(texts)} haplotypes to {output} ({counts['applied']} records applied)"
    left_out = counts["overlapping"]
    notes = [f"note: {left_out:,} records left out: an earlier one changed their place."] if left_out else []
    notes += [f"note: {count:,} alleles of the VCF do nothing ({name})." for name, count in found.dropped.items()]
    show_result(summary, [line], [] if json else notes, as_json=json, quiet=quiet)


def _windows(
    found: Haplotypes, sample: str, regions: list[str], number: int | None, how: CallOptions
) -> Iterator[tuple[str, str, HaplotypeWindow]]:
    """Read regions, or whole contigs, of one or all haplotypes of a person: name, contig, window."""
    from longstrand.genome.intervals import parse_region

    for word in regions:
        is_contig = ":" not in word or word in found.genome.contigs
        place = found.genome.whole(word) if is_contig else parse_region(word)
        numbers = range(1, found.ploidy(sample, place.chrom) + 1) if number is None else [number]
        for one in numbers:
            chosen = place.chrom, place.start, place.end, sample, one
            window = found.window(*chosen, unphased=how.unphased, missing=how.missing)
            yield f"{place}|{sample}|{one}", place.chrom, window
