"""The alleles of a haplotype applied to the reference in one pass: its letters, and the runs that both share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from longstrand.runtime import compiled

Bits = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Planes = tuple[Bits, Bits, npt.NDArray[np.bool_], npt.NDArray[np.float64]]
"""Bits of what a haplotype carries and of what is not phased; which alleles are missing calls; their frequencies."""
UNPHASED = {"first": 0, "random": 0, "skip": 1, "iupac": 2}
"""What becomes of unphased alleles: as the bits say, none, or N where any allele of the person is."""
PURE = 2


@compiled
def bit(plane: Bits, number: int) -> bool:
    """Read a bit of a plane; one without bits has none."""
    return len(plane) > 0 and (plane[number >> 3] >> (7 - (number & 7)) & 1) == 1


@compiled
def carries(planes: Planes, number: int, unphased: int, with_missing: bool, least: float) -> bool:
    """Say whether a haplotype has an allele, or the lack of a call ``with_missing``, of this frequency or more."""
    bits, loose, missing, frequencies = planes
    found = bit(bits, number) and (with_missing or len(missing) == 0 or not missing[number])
    if unphased and bit(loose, number):
        found = unphased == 2
    return found and frequencies[number] >= least


@compiled
def _grown(letters: Bits, size: int, needed: int) -> Bits:
    """Give room for ``needed`` more letters."""
    if size + needed <= len(letters):
        return letters
    larger = np.empty(2 * (size + needed), np.uint8)
    larger[:size] = letters[:size]
    return larger


@compiled
def _finish(letters: Bits, size: int, runs: list[tuple[int, int, int]], end: int, length: int) -> tuple[Bits, Ints]:
    """Cut at the end of a window, or at a length."""
    cut = min(length, size)
    if length < 0:
        cut = size
        for at, there, bases in runs[::-1]:
            if there + bases > end:
                cut = at + max(0, end - there)
    blocks = np.empty((len(runs), 3), np.int64)
    kept = 0
    for at, there, bases in runs:
        if at < cut:
            blocks[kept, 0], blocks[kept, 1], blocks[kept, 2] = at, there, min(bases, cut - at)
            kept += 1
    return letters[:cut], blocks[:kept]


@compiled
def apply_alleles(
    reference: Bits, table: Ints, alts: Bits, planes: Planes, hidden: Ints, place: tuple[int, int, int, int],
    how: tuple[int, int, int, bool, float],
) -> tuple[Bits, Ints, tuple[int, int, int], int, bool]:  # fmt: skip
    """Write a window of a haplotype, by the rules of `longstrand.genome.haplotypes`.

    Args:
        reference: letters of the contig from the start of the window on.
        table: int64 ``(n, 6)``, of the index.
        alts: letters of all alternates.
        planes: of the haplotype.
        hidden: alleles in whose place the reference stands, though they block what they blocked.
        place: start and end of the window; letters wanted (-1: as the end says); length of the contig.
        how: first allele that can change the window; alleles before which the planes hold; and as in `carries`.

    Returns:
        Letters; blocks ``(m, 3)``; number of records applied and skipped, and the position of the last one; up to where
        the reference is needed; whether more alleles are. Both must be there for the window to be right.
    """
    start, end, length, contig_end = place
    number, limit, unphased, with_missing, least = how
    known, record, position = start + len(reference), -1, 0
    letters, runs = np.empty(len(reference) + 64, np.uint8), [(0, 0, 0)][:0]
    copied = run = cursor = start  # written so far; begin of the present run; first base that no record has changed
    size, run_at, applied, skipped, wanted, frozen, last, inserted = 0, 0, 0, 0, 0, -1, 0, False
    for one in range(number, len(table)):
        position = table[one, 0]
        if position > max(cursor, end) if length < 0 else size - copied + position >= length:
            break
        if one >= limit:
            return letters[:0], table[:0, :3].copy(), (0, 0, 0), 0, True
        if table[one, 4] == record or not carries(planes, one, unphased, with_missing, least):
            continue
        bases, first, behind, alike = table[one, 1], table[one, 2], table[one, 3], table[one, 5]
        record, last, stop = table[one, 4], position, position + bases
        masked = unphased == 2 and bit(planes[1], one)
        grows = not masked and behind - first != bases
        if position <= frozen and (position < frozen or inserted or not grows or alike != PURE):
            skipped += 1
            continue
        applied += 1
        inserted, frozen = grows and behind - first > bases, max(frozen, stop - 1)
        if (hidden == one).any() or (not grows and stop <= start):
            continue
        low = max(cursor, position + (grows and alike > 0))
        if low > known:
            wanted = low
            break
        letters = _grown(letters, size, known - copied + max(bases, behind - first))
        letters[size : size + low - copied] = reference[copied - start : low - start]
        size += low - copied
        copied, cursor = low, max(low, stop)
        if not grows:
            first, behind, copied = first + low - position, first + bases, stop
        else:
            first = first + (alike > 0) if size else behind
            if behind > first or cursor > low:
                if low > run:
                    runs.append((run_at, run, low - run))
                copied, run, run_at = cursor, cursor, size + behind - first
        if masked:
            letters[size : size + behind - first] = 78  # N
        else:
            letters[size : size + behind - first] = alts[first:behind]
        size += behind - first
    final = max(cursor, end if length < 0 else min(contig_end, copied + length - size))
    wanted = max(wanted, final if final > copied else 0)
    if wanted > known:
        return letters[:0], table[:0, :3].copy(), (0, 0, 0), wanted, False
    letters[size : size + final - copied] = reference[copied - start : final - start]
    if final > run:
        runs.append((run_at, run, final - run))
    text, blocks = _finish(letters, size + final - copied, runs, end, length)
    return text, blocks, (applied, skipped, last), wanted, False
