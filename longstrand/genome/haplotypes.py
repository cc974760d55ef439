"""Haplotypes of people: any window of any haplotype of a phased VCF in microseconds, with its map to the reference.

`open_haplotypes` builds a packed index once (a bit for each haplotype and allele), keyed by the content of VCF and
genome. The rules are those of ``bcftools consensus`` 1.24: records apply in the order of the file; an applied record
freezes the bases of its REF, and a later one that begins there is skipped, except a plain insertion or deletion behind
the last of them that follows no insertion. ``*``, symbols and letters other than A, C, G, T do nothing and are counted.

A window [s, e) begins with the first base of the reference at or after s that the haplotype has, and ends before the
first such base at or after e: windows tile a haplotype, and an insertion belongs to the window of the base before it.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longstrand.config import StrictModel
from longstrand.errors import InputError, nearest
from longstrand.genome.fasta import Genome
from longstrand.genome.variants import common_prefix
from longstrand.genome.vcf import Vcf, VcfRecord, judged, open_vcf, survey
from longstrand.runtime import cache_dir, fingerprint_bytes, fingerprint_file, generator, replacing_folder, take_lock

if TYPE_CHECKING:
    from longstrand.genome.consensus import Planes

Unphased = Literal["refuse", "first", "random", "iupac", "skip"]
Missing = Literal["ref", "N"]
Mismatch = Literal["error", "skip"]
FORMAT_VERSION = 6
MOST_UNPHASED = 0.01
"""Share of unphased calls among a person's heterozygous ones above which there are no haplotypes."""


class CallOptions(StrictModel):
    """How the calls of people are read; written once for Python, commands and settings."""

    unphased: Unphased = Field(
        "refuse",
        description="heterozygous calls without phase: refuse people with more than 1 % of them (the few are the "
        "reference), first (as written), random, iupac (N) or skip (the reference)",
    )
    missing: Missing = Field("ref", description="missing calls: the reference (ref), or N")
    mismatch: Mismatch = Field("error", description="a wrong REF or an unknown contig is an error, or skip: left out")


_NEAR = 64
"""Bases behind a window that are read with it."""
_FAR = 1 << 62
Bits = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Allele = tuple[int, str, str]
"""0-based start, REF and ALT as in the file."""
NOT_CARRIED = {
    "not_carried": "this haplotype of the sample has another allele",
    "missing": "the call of this haplotype is missing",
    "unphased": "the call is heterozygous without phase, so its haplotype is not known",
    "no_haplotype": "the sample has fewer haplotypes on this contig",
}
"""Why a haplotype does not carry an allele."""


class SeveralPhaseSets(InputError):
    """A window joins heterozygous calls of several phase sets, between which the phase is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class HaplotypeWindow:
    """A stretch of a haplotype.

    Attributes:
        sequence: its letters, case as in the genome and the VCF.
        blocks: int64 ``(n, 3)``: place in ``sequence``, place on the contig, length of each run that both share, in
            order; inserted bases are in none.
        num_applied: records that changed something from the start of the window (or shortly before) on.
        num_overlapping: records of this haplotype that were skipped because an earlier one changed their place.
    """

    sequence: str
    blocks: Ints
    num_applied: int
    num_overlapping: int

    @property
    def reference_positions(self) -> Ints:
        """Position on the contig of each letter, int64 ``(len(sequence),)``; -1 for inserted ones."""
        positions = np.full(len(self.sequence), -1, dtype=np.int64)
        for start, there, length in self.blocks.tolist():
            positions[start : start + length] = np.arange(there, there + length)
        return positions


@dataclass(frozen=True, eq=False)
class _Contig:
    """The alleles of one contig, in the order of the file; n alleles, H haplotypes (samples times highest ploidy).

    Attributes:
        positions: int64 ``(n,)``.
        table: int64 ``(n, 6)``: position, bases of REF, start and end of the alternate in ``alts``, its record, and how
            REF and the alternate begin alike (`_alike`).
        alts: letters of all alternates.
        missing: whether this is no allele but the lack of a call ``(n,)``; empty if none is.
        safe: number of the last allele at or before this one that nothing before it can reach ``(n,)``.
        frequencies: share of the called haplotypes that carry it ``(n,)``.
        ploidy: haplotypes of each sample ``(samples,)``.
        phase_sets: ``(samples, n)``, or no columns without PS.
        bits, unphased: uint8 ``(H, n / 8)``: what a haplotype carries; what is of an unphased heterozygous call.
    """

    positions: Ints
    table: Ints
    alts: Bits
    missing: npt.NDArray[np.bool_]
    safe: Ints
    frequencies: npt.NDArray[np.float64]
    ploidy: Ints
    phase_sets: Ints
    bits: Bits
    unphased: Bits

    @classmethod
    def load(cls, folder: Path, place: int) -> _Contig:
        names = [field.name for field in fields(cls)]
        return cls(*(np.load(folder / f"{place}-{name}.npy", mmap_mode="r").view(np.ndarray) for name in names))

    def find(self, start: int, ref: str, alt: str) -> set[int]:
        """Find the numbers of an allele (several if the file repeats it)."""
        low, high = self.positions.searchsorted((start, start + 1)).tolist()
        near = range(low, high)
        return {n for n in near if self.table[n, 1] == len(ref) and self.alt(n).upper() == alt.upper()}

    def alt(self, number: int) -> str:
        return self.alts[slice(*self.table[number, 2:4].tolist())].tobytes().decode()


class Haplotypes:
    """The haplotypes of a phased VCF; pickles, and serves threads and forked workers.

    Attributes:
        samples: names, in the order of the VCF.
        dropped: how many alleles were left out, by reason.
        fingerprint: of VCF, genome and rules.
    """

    def __init__(self, folder: Path, genome: Genome) -> None:
        from longstrand.genome import consensus  # numba

        about = json.loads((folder / "index.json").read_text())
        self._consensus = consensus
        self.genome, self._folder = genome, folder
        self.samples: list[str] = about["samples"]
        self.dropped: dict[str, int] = about["dropped"]
        self.fingerprint: str = about["fingerprint"]
        self._name: str = about["name"]
        self._hets = np.load(folder / "hets.npy")
        self._number = {name: number for number, name in enumerate(self.samples)}
        self._contigs = {chrom: _Contig.load(folder, place) for place, chrom in enumerate(about["contigs"])}

    def __reduce__(self) -> tuple[object, ...]:
        return Haplotypes, (self._folder, self.genome)

    @property
    def contigs(self) -> list[str]:
        """Contigs of the genome that have records."""
        return list(self._contigs)

    def ploidy(self, sample: str, chrom: str) -> int:
        """Count the haplotypes of a sample on a contig; 2 where the VCF has no record.

        Raises:
            InputError: there is no such sample or contig.
        """
        number = self._sample(sample)
        if chrom in self._contigs:
            return self._contigs[chrom].ploidy.item(number)
        self.genome.whole(chrom)
        return 2

    def _sample(self, sample: str) -> int:
        if sample not in self._number:
            shown = ", ".join(self.samples[:5]) + (" ..." if len(self.samples) > 5 else "")
            raise InputError(f"{self._name}: no sample '{sample}'{nearest(sample, self.samples)}; it has {shown}.")
        return self._number[sample]

    def window(
        self, chrom: str, start: int, end: int, sample: str, haplotype: int, *, length: int | None = None,
        unphased: Unphased = "refuse", missing: Missing = "ref", min_frequency: float = 0.0, seed: int = 0,
        without: Allele | None = None,
    ) -> HaplotypeWindow:  # fmt: skip
        """Read bases ``start`` to ``end - 1`` of the reference as one haplotype has them.

        Args:
            chrom: contig of the genome.
            start: 0-based.
            end: after the last base.
            sample: name.
            haplotype: 1 to the ploidy.
            length: letters wanted from the start on, whatever ``end`` says; fewer only at the end of the contig.
            unphased: heterozygous calls without phase: ``refuse`` people with more than 1 % of them (the few are
                skipped), ``first`` as written, ``random`` by seed, sample and site, ``iupac`` N, ``skip`` reference.
            missing: calls that are missing for this haplotype: the reference, or N over the whole REF.
            min_frequency: alleles of a smaller share of the haplotypes of the file are left out.
            seed: of ``random``.
            without: an allele of the file that the haplotype is to lack; it blocks what it blocked before.

        Raises:
            InputError: there is no such contig, place, sample or haplotype; calls are not phased.
            SeveralPhaseSets: the window joins heterozygous calls of several phase sets.
        """
        whole = self.genome.contigs.get(chrom) or self.genome.whole(chrom).length
        if not 0 <= start <= end <= whole:
            raise InputError(f"{chrom}:{start + 1}-{end} is not on the contig of {whole} bases.")
        number, ploidy = self._sample(sample), self.ploidy(sample, chrom)
        if not 1 <= haplotype <= ploidy:
            raise InputError(
                f"{self._name}: '{sample}' has {ploidy} haplotypes on {chrom}; there is no number {haplotype}."
            )
        unphased = self._phased(number, sample) if unphased == "refuse" else unphased
        if chrom not in self._contigs:
            text = self.genome.fetch(chrom, start, end if length is None else min(start + length, whole))
            blocks = np.array([(0, start, len(text))] if text else (), dtype=np.int64).reshape(-1, 3)
            return HaplotypeWindow(text, blocks, 0, 0)
        carried = _Carried(self, chrom, number, haplotype - 1, (unphased, missing), seed, min_frequency)
        hidden = carried.contig.find(*without) if without else ()
        found, last = carried.window(start, end, length, hidden)
        self._check_sets(carried.contig, number, start, max(end, last))
        return found

    def status(
        self, chrom: str, allele: Allele, sample: str, haplotype: int, *, unphased: Unphased = "skip", seed: int = 0
    ) -> str:
        """Say whether a haplotype carries an allele of the file: ``ok``, or why not, a key of `NOT_CARRIED`.

        Args:
            chrom: contig of the genome.
            allele: 0-based start, REF and ALT, as the file has them.
            sample: name.
            haplotype: from 1 on.
            unphased: as in `window`.
            seed: as there.
        """
        number, ploidy = self._sample(sample), self.ploidy(sample, chrom)
        if haplotype > ploidy:
            return "no_haplotype"
        how: Unphased = "skip" if unphased == "iupac" else unphased
        carried = _Carried(self, chrom, number, haplotype - 1, (how, "N"), seed)
        contig, found = carried.contig, carried.contig.find(*allele)
        if how == "skip" and carried.unphased_at(found):
            return "unphased"
        low, high = contig.positions.searchsorted((allele[0], allele[0] + 1)).tolist()
        own, records = carried.numbers(low, high), set(contig.table[list(found), 4].tolist())
        if not found.isdisjoint(own):
            return "ok"
        lacks = [one for one in own if contig.missing.size and contig.missing[one] and contig.table[one, 4] in records]
        return "missing" if lacks else "not_carried"

    def distinct(self, chrom: str, start: int, end: int) -> list[tuple[str, int]]:
        """Name one (sample, haplotype) for each different set of alleles that begin in a window."""
        if chrom not in self._contigs:
            return []
        contig = self._contigs[chrom]
        low, high = contig.positions.searchsorted((start, end)).tolist()
        numbers = np.flatnonzero((np.arange(self._rows(contig)) < contig.ploidy[:, None]).ravel())
        bits = np.unpackbits(contig.bits[numbers, low // 8 : -(-high // 8)], axis=1)[:, low % 8 : low % 8 + high - low]
        _, first = np.unique(np.packbits(bits, axis=1), axis=0, return_index=True)
        return self._names(contig, numbers[np.sort(first)])

    def carriers(self, chrom: str, allele: Allele) -> list[tuple[str, int]]:
        """List the (sample, haplotype) that carry an allele of the file."""
        if chrom not in self._contigs:
            return []
        contig = self._contigs[chrom]
        carried = [contig.bits[:, one // 8] >> (7 - one % 8) & 1 for one in contig.find(*allele)]
        return self._names(contig, np.flatnonzero(np.any(carried, axis=0)))

    def _rows(self, contig: _Contig) -> int:
        """Count the rows of each sample, the highest ploidy of the contig."""
        return len(contig.bits) // len(self.samples)

    def _names(self, contig: _Contig, rows: Ints) -> list[tuple[str, int]]:
        owners = (divmod(row, self._rows(contig)) for row in rows.tolist())
        return [(self.samples[sample], place + 1) for sample, place in owners]

    def check_phased(self, samples: Sequence[str] = ()) -> None:
        """Check that the calls of samples (by default of everybody) are phased.

        Raises:
            InputError: there is no such sample; or naming the first of which more than 1 % of the heterozygous calls
                are not phased.
        """
        for sample in samples or self.samples:
            self._phased(self._sample(sample), sample)

    def _phased(self, number: int, sample: str) -> Unphased:
        unphased, hets = self._hets[number].tolist()
        if unphased > MOST_UNPHASED * hets:
            raise InputError(
                f"{self._name}: {unphased:,} of {hets:,} heterozygous calls of '{sample}' are not phased, so there are "
                "no haplotypes; phase the VCF, or choose unphased: first, random, iupac or skip."
            )
        return "skip"

    def _check_sets(self, contig: _Contig, number: int, start: int, end: int) -> None:
        if not contig.phase_sets.size:
            return
        low, high = np.searchsorted(contig.positions, [start, end])
        sets = np.unique(contig.phase_sets[number, low:high])
        if len(sets[sets >= 0]) > 1:
            raise SeveralPhaseSets(
                f"{self._name}: the calls of '{self.samples[number]}' from base {start + 1} to {end} belong to several "
                "phase sets (PS), between which the phase is not known; read each set by itself."
            )


@dataclass
class _Carried:
    """The alleles of one haplotype of one sample (``number``, ``place``: from 0 on) on one contig."""

    of: Haplotypes
    chrom: str
    number: int
    place: int
    how: tuple[Unphased, Missing]
    seed: int
    min_frequency: float = 0.0

    def __post_init__(self) -> None:
        self.contig, self.consensus = self.of._contigs[self.chrom], self.of._consensus
        self.row, self.ploidy = self.number * self.of._rows(self.contig), self.contig.ploidy.item(self.number)

    def window(self, start: int, end: int, length: int | None, hidden: Collection[int]) -> tuple[HaplotypeWindow, int]:
        """Read a window without some alleles; also the position of the last record that was looked at."""
        contig, whole = self.contig, self.of.genome.contigs[self.chrom]
        first, high = contig.positions.searchsorted((start, end + 1)).tolist()
        low, known, fetched = contig.safe.item(first - 1) if first else 0, min(end + _NEAR, whole), -1
        place, without = (start, end, -1 if length is None else length, whole), np.array(list(hidden), dtype=np.int64)
        while True:
            if fetched != known:
                letters = self.of.genome.fetch(self.chrom, start, known).encode()
                reference, fetched = np.frombuffer(letters, np.uint8), known
            planes, limit = self.planes(low, high)
            text, blocks, counts, wanted, more = self.consensus.apply_alleles(
                reference, contig.table, contig.alts, planes, without, place, (low, limit, *self._chosen)
            )
            if wanted > known:
                known = max(wanted, min(wanted + _NEAR, whole))
            elif more:
                high += 64
            else:
                return HaplotypeWindow(str(text.data, "ascii"), blocks, *counts[:2]), counts[2]

    @property
    def _chosen(self) -> tuple[int, bool, float]:
        return self.consensus.UNPHASED[self.how[0]], self.how[1] == "N", self.min_frequency

    def numbers(self, low: int, high: int) -> list[int]:
        """List the alleles from ``low`` to ``high - 1`` that the haplotype has, lacking calls among them."""
        planes, _ = self.planes(low, high)
        return [number for number in range(low, high) if self.consensus.carries(planes, number, *self._chosen)]

    def planes(self, low: int, high: int) -> tuple[Planes, int]:
        """Give what the kernel reads of this haplotype, and the first allele from which on it does not hold.

        Unphased alleles at random are drawn from ``low`` to ``high - 1``.
        """
        contig, row = self.contig, self.row + self.place
        bits, loose, limit = contig.bits[row], contig.unphased[row], len(contig.positions)
        if self.how[0] == "random" and len(loose):
            limit = min(limit, high)
            drawn = bits.copy()
            for number in filter(partial(self.consensus.bit, loose), range(low, limit)):
                order = generator(self.seed, int(contig.table[number, 4]), f"phase {self.number}")
                other = contig.bits[self.row + int(order.permutation(self.ploidy)[self.place])]
                byte, mask = number >> 3, 128 >> (number & 7)
                drawn[byte] = int(drawn[byte]) & (255 ^ mask) | int(other[byte]) & mask
            bits = drawn
            bits.flags.writeable = False
        return (bits, loose, contig.missing, contig.frequencies), limit if limit < len(contig.positions) else _FAR

    def unphased_at(self, numbers: set[int]) -> bool:
        """Say whether the person carries one of these alleles on a haplotype that is not known."""
        contig, bit = self.contig, self.consensus.bit
        at = [number for number in numbers if bit(contig.unphased[self.row + self.place], number)]
        return any(bit(contig.bits[self.row + place], number) for number in at for place in range(self.ploidy))


def _alike(ref: str, alt: str) -> int:
    """Say whether alleles of different lengths begin alike (1), and differ by an insertion or deletion alone (2)."""
    if len(ref) == len(alt) or not (same := common_prefix(ref, alt)):
        return 0
    shorter, longer = sorted((ref[same:], alt[same:]), key=len)
    return 1 + longer.endswith(shorter)


def open_haplotypes(vcf: Path | str, genome: Genome, *, mismatch: Mismatch = "error") -> Haplotypes:
    """Open the haplotypes of a VCF, from the cache if the same file was indexed before.

    Args:
        vcf: plain, gzip or bgzip VCF, or BCF, with genotypes.
        genome: what it belongs to; every REF is compared.
        mismatch: what a wrong REF or an unknown contig is; ``skip`` counts and leaves out.

    Raises:
        InputError: the file is damaged, unsorted or of another genome, or has no samples or genotypes.
    """
    file = open_vcf(vcf)
    if not file.samples:
        raise InputError(f"{file.path}: the VCF has no samples, so it holds no haplotypes.")
    identity = [fingerprint_file(file.path), genome.fingerprint, mismatch, FORMAT_VERSION]
    fingerprint = fingerprint_bytes(json.dumps(identity).encode())
    entry = cache_dir() / "haplotypes" / fingerprint.removeprefix("sha256:")[:32]
    if not (entry / "index.json").exists():
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            with take_lock(entry.with_suffix(".lock"), None):
                if not (entry / "index.json").exists():
                    with replacing_folder(entry) as folder:
                        _build(file, genome, mismatch, folder, fingerprint)
        except OSError as error:
            shutil.rmtree(entry, ignore_errors=True)
            raise InputError(
                f"{file.path}: its index cannot be written to {entry.parent} ({error.strerror})."
            ) from None
    return Haplotypes(entry, genome)


def _build(vcf: Vcf, genome: Genome, mismatch: str, folder: Path, fingerprint: str) -> None:
    found = survey(vcf, genome, skip=mismatch == "skip")
    hets = np.zeros((len(vcf.samples), 2), dtype=np.int64)
    builders: dict[str, _Builder] = {}
    dropped: Counter[str] = Counter()
    current: str | None = None
    for number, record in enumerate(vcf):
        chrom = found.contigs[record.chrom]
        statuses = [status for _, status in judged(record, genome, found.contigs)]
        dropped.update(status for status in statuses if status != "ok")
        if chrom is None:
            continue
        if chrom != current:
            if chrom in builders:
                raise InputError(f"{vcf.path}:{record.line}: contig '{record.chrom}' comes twice; sort the VCF.")
            if current is not None:
                builders[current].write(folder, len(builders) - 1)
            current, builders[chrom] = chrom, _Builder(len(vcf.samples))
        builders[chrom].add(record, number, [status == "ok" for status in statuses], hets, vcf)
    if current is not None:
        builders[current].write(folder, len(builders) - 1)
    np.save(folder / "hets.npy", hets)
    about = {"samples": vcf.samples, "contigs": list(builders), "dropped": dict(dropped)}
    text = json.dumps({**about, "fingerprint": fingerprint, "name": vcf.path.name})
    (folder / "index.json").write_text(text)


class _Builder:
    """Collects the alleles of one contig, allele by allele, and writes them haplotype by haplotype."""

    def __init__(self, num_samples: int) -> None:
        self._samples, self._ploidy = num_samples, 2
        self._highest = np.zeros(num_samples, dtype=np.int64)
        self._sites: list[tuple[int, int, bytes, int, int, bool, float]] = []
        self._columns: list[Bits] = []
        self._unphased: dict[int, Bits] = {}
        self._sets: list[Ints | None] = []

    def add(self, record: VcfRecord, number: int, usable: Sequence[bool], hets: Ints, vcf: Vcf) -> None:
        """Take the genotypes of a record."""
        if self._sites and record.start < self._sites[-1][0]:
            raise InputError(f"{vcf.path}:{record.line}: positions fall; sort the VCF (bcftools sort).")
        calls, phased = _genotypes(record, self._samples, vcf)
        self._highest = np.maximum(self._highest, (calls > -2).sum(1))
        if calls.shape[1] > self._ploidy:
            self._widen(calls.shape[1])
        if calls.shape[1] < self._ploidy:
            calls = np.pad(calls, ((0, 0), (0, self._ploidy - calls.shape[1])), constant_values=-2)
        there = calls > -2
        het = there.any(1) & ((calls != calls[:, :1]) & there).any(1)
        hets[:, 0] += het & ~phased
        hets[:, 1] += het
        loose = np.packbits(np.repeat(het & ~phased, self._ploidy)) if (het & ~phased).any() else None
        first = len(self._sites)
        alts = [alt.encode() for alt in record.alts]
        entries = [(alt, calls == one, False) for one, (alt, good) in enumerate(zip(alts, usable), 1) if good]
        entries += [(b"N" * len(record.ref), calls == -1, True)] if (calls == -1).any() else []
        for alt, carried, lacks in entries:
            share = 1.0 if lacks else float(carried.sum() / max(1, (calls >= 0).sum()))
            alike = _alike(record.ref.upper(), alt.decode().upper())
            self._sites.append((record.start, len(record.ref), alt, number, alike, lacks, share))
            self._columns.append(np.packbits(carried.ravel()))
        if loose is not None:
            self._unphased |= dict.fromkeys(range(first, len(self._sites)), loose)
        sets = _phase_sets(record)
        self._sets += [None if sets is None else np.where(het & phased, sets, -1)] * len(entries)

    def _widen(self, ploidy: int) -> None:
        def wider(column: Bits) -> Bits:
            shape = self._samples, self._ploidy
            calls = np.unpackbits(column)[: shape[0] * shape[1]].reshape(shape)
            return np.packbits(np.pad(calls, ((0, 0), (0, ploidy - shape[1]))).ravel())

        self._columns = [wider(column) for column in self._columns]
        self._unphased = {place: wider(column) for place, column in self._unphased.items()}
        self._ploidy = ploidy

    def write(self, folder: Path, place: int) -> None:
        """Write the arrays of the contig."""
        positions, sizes, alts, records, alike, missing, shares = zip(*self._sites) if self._sites else [()] * 7
        start, size, length, record, like = np.array(
            (positions, sizes, [len(alt) for alt in alts], records, alike), dtype=np.int64
        )
        ends, reach = np.cumsum(length), np.maximum.accumulate(np.append(0, start + size))[:-1]
        none, none_set = np.zeros(-(-self._samples * self._ploidy // 8), dtype=np.uint8), np.full(self._samples, -1)
        loose = [self._unphased.get(number, none) for number in range(len(start))] if self._unphased else []
        some = any(one is not None for one in self._sets)
        sets = [none_set if one is None else one for one in self._sets if some]
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "positions": start, "table": np.stack((start, size, ends - length, ends, record, like), axis=1),
            "alts": np.frombuffer(b"".join(alts), dtype=np.uint8),
            "missing": np.array(missing if any(missing) else (), dtype=bool),
            "safe": np.maximum.accumulate(np.where(reach <= start, np.arange(len(start)), 0)),
            "frequencies": np.array(shares, dtype=np.float64),
            "ploidy": np.where(self._highest > 0, self._highest, 2),
            "phase_sets": np.stack(sets, axis=1) if sets else np.empty((0, 0), np.int64),
            "bits": self._by_haplotype(self._columns), "unphased": self._by_haplotype(loose),
        }  # fmt: skip
        for name, array in arrays.items():
            np.save(folder / f"{place}-{name}.npy", array)
        self._columns.clear()

    def _by_haplotype(self, columns: Sequence[Bits]) -> Bits:
        """Turn a bit column for each allele into a bit row for each haplotype, some haplotypes at a time."""
        total = self._samples * self._ploidy
        if not columns:
            return np.empty((total, 0), dtype=np.uint8)
        rows = np.empty((total, -(-len(columns) // 8)), dtype=np.uint8)
        for low in range(0, -(-total // 8), 64):
            part = np.stack([column[low : low + 64] for column in columns])
            there = np.unpackbits(part, axis=1)[:, : total - 8 * low]
            rows[8 * low : 8 * low + there.shape[1]] = np.packbits(there.T, axis=1)
        return rows


def _genotypes(record: VcfRecord, num_samples: int, vcf: Vcf) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Read the calls of a record: alleles ``(samples, ploidy)``, -1 missing, -2 none; and whether each is phased."""
    keys, _, rest = record.cells[8].partition(b"\t")
    if keys.split(b":")[0] != b"GT":
        raise InputError(f"{vcf.path}:{record.line}: FORMAT has no GT in front, so there are no genotypes.")
    if len(rest) == 4 * num_samples - 1:
        table = np.frombuffer(rest + b"\t", dtype=np.uint8).reshape(num_samples, 4)
        digits = table[:, [0, 2]].astype(np.int64) - 48
        if ((digits >= 0) & (digits <= 9)).all() and np.isin(table[:, 1], (124, 47)).all():
            return _known(digits, record, vcf), table[:, 1] == 124
    cells = [cell.split(b":", 1)[0] for cell in rest.split(b"\t")]
    texts = [cell.lstrip(b"|/").replace(b"/", b"|").split(b"|") for cell in cells]
    if not all(one == b"." or one.isdigit() for own in texts for one in own):
        raise InputError(f"{vcf.path}:{record.line}: a genotype is none, such as 0|1 or ./. .")
    alleles = [[-1 if one == b"." else int(one) for one in own] for own in texts]
    width = max(map(len, alleles))
    calls = np.array([one + [-2] * (width - len(one)) for one in alleles], dtype=np.int64)
    return _known(calls, record, vcf), np.array([b"/" not in cell[1:] for cell in cells])


def _known(calls: npt.NDArray[np.int64], record: VcfRecord, vcf: Vcf) -> npt.NDArray[np.int64]:
    """Check that a record has the alleles that its genotypes name; the calls come back."""
    alts = [] if record.alts == ["."] else record.alts
    if calls.max(initial=0) > len(alts):
        raise InputError(f"{vcf.path}:{record.line}: a genotype names allele {calls.max()}; there are {len(alts)}.")
    return calls


def _phase_sets(record: VcfRecord) -> Ints | None:
    keys, _, rest = record.cells[8].partition(b"\t")
    names = keys.split(b":")
    if b"PS" not in names:
        return None
    texts = [dict(zip(names, cell.split(b":"))).get(b"PS", b".") for cell in rest.split(b"\t")]
    return np.array([int(text) if text.isdigit() else -1 for text in texts], dtype=np.int64)
