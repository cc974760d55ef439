"""Genomes that are served: regions to sequences, names of genes to places. Only what was named at the start is read."""

from __future__ import annotations

import re
from bisect import bisect_left
from pathlib import Path
from typing import Any

from longstrand.data.rows import Record
from longstrand.errors import InputError
from longstrand.genome.annotation import Transcript, gene_symbols, read_annotation, transcripts
from longstrand.genome.fasta import Genome, chrom_twin
from longstrand.genome.intervals import Interval, parse_region
from longstrand.genome.variants import EXAMPLE, SKIPPED, Variant, judge, parse_variant
from longstrand.serve.refusals import Refusal, near
from longstrand.serve.schemas import Input

MOST_HITS = 20
MOST_GENES = 2000


class ServedGenome:
    """A genome, and its genes if an annotation was given.

    Args:
        name: what clients call it.
        path: FASTA.
        annotation: GFF3 or GTF, or None.

    Raises:
        InputError: a file is missing or damaged, or annotation and genome have no contig in common.
    """

    def __init__(self, name: str, path: Path, annotation: Path | None = None) -> None:
        self.name, self.genome = name, Genome(path)
        self.transcripts: list[Transcript] = []
        self.symbols: dict[str, str] = {}
        if annotation is not None:
            found = transcripts(read_annotation(annotation, contigs=self.genome.contigs))
            self.transcripts = [item for item in found if item.chrom in self.genome.contigs]
            if found and not self.transcripts:
                self.genome.check_chroms([found[0].chrom], where=str(annotation))
            self.symbols = gene_symbols(annotation)
        self.has_annotation = annotation is not None
        self._starts: dict[str, list[Transcript]] = {}
        for item in self.transcripts:
            self._starts.setdefault(item.chrom, []).append(item)
        self._longest = {chrom: max(x.end - x.start for x in items) for chrom, items in self._starts.items()}
        self._names: dict[str, list[Transcript]] = {}
        for item in self.transcripts:
            for word in {item.name, item.gene, self.symbol(item)} - {""}:
                self._names.setdefault(_plain(word), []).append(item)
        self._sorted = sorted(self._names)

    def card(self) -> dict[str, Any]:
        """Say what it is."""
        contigs = [{"name": name, "length": length} for name, length in self.genome.contigs.items()]
        return {
            "name": self.name, "fingerprint": self.genome.fingerprint, "contigs": contigs,
            "bases": sum(self.genome.contigs.values()), "fasta": f"/v1/genomes/{self.name}/{self.name}.fa",
            "index": f"/v1/genomes/{self.name}/{self.name}.fa.fai", "has_annotation": self.has_annotation,
        }  # fmt: skip

    def symbol(self, item: Transcript) -> str:
        """Give the name by which people know the gene of a transcript."""
        return self.symbols.get(item.gene) or item.gene or self.symbols.get(item.name) or item.name

    def region(self, text: str, where: str) -> Interval:
        """Read a region and check that it lies on the genome.

        Raises:
            Refusal: it is none, its contig is unknown, or it leaves the contig.
        """
        try:
            found = parse_region(text)
        except (InputError, ValueError):
            raise Refusal(422, f"{where} is no region; write chrom:start-end, such as chr1:1,001-2,000 (from 1, both "
                          "ends included).", "region", where) from None  # fmt: skip
        length = self.genome.contigs.get(found.chrom)
        if length is None:
            raise self._unknown(found.chrom, where)
        if found.end > length:
            raise Refusal(422, f"{where} ends at {found.end:,}, but {found.chrom} has {length:,} bases in {self.name}; "
                          "check the assembly.", "outside_contig", where)  # fmt: skip
        return found

    def _unknown(self, chrom: str, where: str) -> Refusal:
        hint = chrom_twin(chrom, self.genome.contigs) or near(chrom, self.genome.contigs)
        more = f"did you mean {hint}?" if hint else "see /v1/genomes for its contigs."
        message = f"{where}: {self.name} has no such contig; {more}"
        return Refusal(422, message, "unknown_contig", where, hint=hint)

    def variant(self, text: str, where: str) -> Variant:
        """Read a variant and check that it can be scored on the genome.

        Raises:
            Refusal: it is none, or does not fit the genome.
        """
        try:
            found = parse_variant(text)
        except (InputError, ValueError):
            raise Refusal(422, f"{where} is no variant; write it as {EXAMPLE}.", "variant", where) from None
        problem = judge(self.genome, found.chrom, found.start, found.ref, found.alt)
        if problem == "unknown_contig":
            raise self._unknown(found.chrom, where)
        if problem is not None:
            there = ""
            if problem == "ref_mismatch":
                there = f" (it has {self.genome.fetch(found.chrom, found.start, found.end)[:20]})"
            message = f"{where} cannot be scored: {SKIPPED[problem]}{there}."
            raise Refusal(422, message, problem, where, position=max(0, found.start))
        return found

    def genes(self, region: Interval) -> list[dict[str, Any]]:
        """List the transcripts that overlap a region, at most `MOST_GENES`."""
        items = self._starts.get(region.chrom, [])
        first = bisect_left(items, region.start - self._longest.get(region.chrom, 0), key=lambda item: item.start)
        last = bisect_left(items, region.end, key=lambda item: item.start)
        inside = [item for item in items[first:last] if item.end > region.start][:MOST_GENES]
        return [{"name": item.name, "gene": self.symbol(item), "chrom": item.chrom, "start": item.start,
                 "end": item.end, "strand": item.strand, "exons": [list(exon) for exon in item.exons]}
                for item in inside]  # fmt: skip

    def search(self, text: str) -> list[dict[str, Any]]:
        """Find a region, a variant, or genes by their name or its beginning; nothing found is an empty list."""
        word = text.strip()
        whole = self.genome.contigs.get(word)
        if whole is not None:
            return [_hit(word, "locus", Interval(word, 0, whole))]
        try:
            return [_hit(word, "locus", self.region(word, "q"))]
        except Refusal:
            pass
        try:
            found = self.variant(word, "q")
            return [_hit(str(found), "variant", Interval(found.chrom, found.start, found.end))]
        except Refusal:
            pass
        key, hits, seen = _plain(word), list[dict[str, Any]](), set[str]()
        for place in range(bisect_left(self._sorted, key), len(self._sorted)):
            name = self._sorted[place]
            if not key or not name.startswith(key) or len(hits) >= MOST_HITS:
                break
            genes: dict[tuple[str, str], list[Transcript]] = {}
            for item in self._names[name]:
                genes.setdefault((item.chrom, item.gene or item.name), []).append(item)
            for (chrom, gene), items in genes.items():
                if gene not in seen:
                    seen.add(gene)
                    around = Interval(chrom, min(x.start for x in items), max(x.end for x in items), items[0].strand)
                    hits.append(_hit(self.symbol(items[0]), "gene", around))
        return hits[:MOST_HITS]


def _plain(name: str) -> str:
    """Drop what annotations write before a name (``gene:``), and case."""
    return re.sub(r"^(gene|transcript|rna|mrna|gene-|rna-)[:-]", "", name.lower())


def _hit(name: str, kind: str, interval: Interval) -> dict[str, Any]:
    return {"name": name, "kind": kind, **place_of(interval)}


def place_of(interval: Interval | None) -> dict[str, Any]:
    """Say where a sequence lies, for programs (0-based) and for people (1-based)."""
    if interval is None:
        return {"region": None, "interval": None}
    chrom, start, end = interval.chrom, interval.start, interval.end
    return {"region": f"{chrom}:{start + 1:,}-{end:,}", "interval": {"chrom": chrom, "start": start, "end": end},
            "strand": interval.strand}  # fmt: skip


def record_of(given: Input, number: int, where: str, genomes: dict[str, ServedGenome], room: int) -> Record:
    """Read an input: its letters, its name, and where they come from.

    Args:
        given: the input.
        number: its number.
        where: its field.
        genomes: those that are served.
        room: most bases.

    Raises:
        Refusal: it is neither a sequence nor a region, the region does not exist, or it is too long.
    """
    if (given.sequence is None) == (given.region is None):
        raise Refusal(422, f"{where} needs either a sequence, or a genome and a region.", "input", where)
    if given.sequence is not None:
        if given.genome is not None or given.strand is not None:
            raise Refusal(422, f"{where}: genome and strand are for regions, not for a sequence.", "input", where)
        too_many(len(given.sequence), room)
        return Record(number, given.name or str(number), given.sequence, where=f"{where}.sequence")
    if given.genome is None:
        raise Refusal(422, f"{where}.genome is missing; see /v1/genomes.", "input", f"{where}.genome")
    served = one_of(genomes, given.genome, "genome", f"{where}.genome")
    found = served.region(str(given.region), f"{where}.region")
    strand = given.strand or found.strand
    interval = Interval(found.chrom, found.start, found.end, strand)
    too_many(interval.length, room)
    letters = served.genome.fetch_interval(interval)
    return Record(number, given.name or str(interval), letters, interval, where=f"{where}.region")


def too_many(num_bases: int, room: int) -> None:
    """Refuse more bases than a request may have.

    Raises:
        Refusal: as said.
    """
    if num_bases > room:
        raise Refusal(413, f"The request has more than the {room:,} bases that are left of its limit; send it as a job "
                      "to /v1/jobs.", "too_many_bases")  # fmt: skip


def one_of(known: dict[str, Any], name: str, what: str, where: str) -> Any:
    """Return what goes by a name.

    Raises:
        Refusal: nothing does (404).
    """
    if name in known:
        return known[name]
    hint = near(name, known)
    more = f"did you mean {hint}?" if hint else f"see /v1/{what}s."
    raise Refusal(404, f"{where}: there is no such {what}; {more}", f"unknown_{what}", where, hint=hint)
