"""DNA letters: normalising them (counted), reverse complement, composition."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from longstrand.errors import InputError

if TYPE_CHECKING:
    import numpy as np

AMBIGUOUS = "RYSWKMBDHV"
"""IUPAC letters for two or three bases; with ``N`` and ``ACGTU`` these are all nucleotide letters."""

NUCLEOTIDES = "ACGTUN" + AMBIGUOUS

IUPAC = {"R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC"}
IUPAC |= {"B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT", "U": "T"} | {base: base for base in "ACGT"}
"""The bases that a nucleotide letter stands for."""

_CLEAN = b"ACGTN"
_UPPER_CASE = bytes(range(ord("A"), ord("Z") + 1))
_LOWER_CASE = bytes(range(ord("a"), ord("z") + 1))
_KNOWN = (NUCLEOTIDES + NUCLEOTIDES.lower()).encode()
_COMPLEMENT = str.maketrans("ACGTUNRYSWKMBDHVacgtunryswkmbdhv", "TGCAANYRSWMKVHDBtgcaanyrswmkvhdb")


@dataclass(frozen=True, slots=True)
class Normalised:
    """A sequence in the letters of a tokenizer, and what was changed to get there.

    Attributes:
        sequence: upper case, as long as the input.
        num_lower_case: letters that were lower case (soft-masked repeats).
        num_unknown: letters outside the alphabet that became ``N`` (an ``N`` of the input counts only if the alphabet
            has no ``N``).
    """

    sequence: str
    num_lower_case: int
    num_unknown: int


def normalise(sequence: str, alphabet: str = "ACGTN", *, where: str = "") -> Normalised:
    """Put a sequence into upper case and into the letters of ``alphabet``.

    ``U`` becomes ``T``; other nucleotide letters (IUPAC codes) that are not in ``alphabet`` become ``N``, counted. The
    length never changes. The empty sequence is returned as it is.

    Args:
        sequence: nucleotide letters in any case.
        alphabet: upper-case letters that are kept (what the tokenizer knows).
        where: what the error should name, for example ``"train.csv:17"``.

    Raises:
        InputError: a character is no nucleotide letter; its position (1-based) and ``where`` are named.
    """
    try:
        letters = sequence.encode("ascii")
    except UnicodeEncodeError as error:
        raise _no_nucleotide(sequence, error.start, where) from None
    if alphabet == "ACGTN" and not letters.translate(None, _CLEAN):
        return Normalised(sequence, 0, 0)
    if letters.translate(None, _KNOWN):
        raise _no_nucleotide(sequence, first_bad_letter(letters), where)
    num_lower_case = len(letters) - len(letters.translate(None, _LOWER_CASE))
    letters = letters.upper()
    if "U" not in alphabet:
        letters = letters.replace(b"U", b"T")
    kept = alphabet.encode("ascii")
    num_unknown = len(letters.translate(None, kept))
    if num_unknown:
        foreign = bytes(set(_UPPER_CASE) - set(kept))
        letters = letters.translate(bytes.maketrans(foreign, b"N" * len(foreign)))
    return Normalised(letters.decode("ascii"), num_lower_case, num_unknown)


def first_bad_letter(letters: bytes) -> int:
    """Give the 0-based position of the first character that is no nucleotide letter, or -1."""
    return next((position for position, letter in enumerate(letters) if letter not in _KNOWN), -1)


def num_bad_letters(letters: bytes) -> int:
    """Count the characters that are no nucleotide letter (fast; for whole chromosomes)."""
    return len(letters.translate(None, _KNOWN))


def reverse_complement(sequence: str) -> str:
    """Read the other strand; IUPAC letters are complemented, case is kept, any other character stays.

    Example:
        >>> reverse_complement("AACGRn")
        'nYCGTT'
    """
    return sequence.translate(_COMPLEMENT)[::-1]


def shuffle_dinucleotides(sequence: str, random: np.random.Generator) -> str:
    """Shuffle a sequence so that it keeps the number of every pair of neighbouring letters, and its two ends.

    All such sequences are drawn by a random Euler path (Altschul and Erickson 1985). Random numbers: ``random``.
    """
    after: dict[str, list[str]] = {}
    for first, second in pairwise(sequence):
        after.setdefault(first, []).append(second)
    last = sequence[-1:]
    while True:
        exits = {letter: str(random.choice(found)) for letter, found in after.items() if letter != last}
        if all(_leads_to(letter, last, exits) for letter in exits):
            break
    for letter, found in after.items():
        if letter in exits:
            found.remove(exits[letter])
        found[:] = [str(each) for each in random.permutation(found)] + [each for each in [exits.get(letter)] if each]
    path = [sequence[:1]]
    taken = {letter: iter(found) for letter, found in after.items()}
    while (following := next(taken.get(path[-1], iter(())), None)) is not None:
        path.append(following)
    return "".join(path)


def _leads_to(letter: str, goal: str, exits: dict[str, str]) -> bool:
    """Say whether following the exits reaches the goal."""
    for _ in range(len(exits) + 1):
        if letter == goal:
            return True
        letter = exits[letter]
    return False


def has_letters(sequence: str) -> bool:
    """Say whether there is an A, C, G or T in a text, in any case."""
    return not set("ACGTacgt").isdisjoint(sequence)


def gc_fraction(sequence: str) -> float:
    """Give the share of G and C among A, C, G, T (any case, ``U`` as ``T``); 0.5 when there is none of them."""
    upper = sequence.upper()
    num_gc = upper.count("G") + upper.count("C")
    num_at = upper.count("A") + upper.count("T") + upper.count("U")
    return num_gc / (num_gc + num_at) if num_gc + num_at else 0.5


def _no_nucleotide(sequence: str, position: int, where: str) -> InputError:
    place = f"{where}: " if where else ""
    return InputError(
        f"{place}{sequence[position]!r} at position {position + 1} is no nucleotide letter; "
        "sequences may hold A, C, G, T, U, N and the IUPAC codes."
    )
