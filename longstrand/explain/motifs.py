"""Motifs: the readers of MEME, JASPAR and TRANSFAC files, and the writer of MEME.

What a file is, its content decides. Matrices become frequencies ``(width, 4)``, columns A, C, G, T.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longstrand.errors import InputError, UsageError, nearest
from longstrand.genome.text import open_text
from longstrand.runtime import write_atomically

FloatArray = npt.NDArray[np.float64]
Lines = Sequence[tuple[int, str]]

ROUNDING = 0.02
"""How far the frequencies of a column may be from a sum of 1 before the file counts as damaged."""
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


@dataclass(frozen=True, eq=False)
class Motif:
    """A position frequency matrix.

    Attributes:
        name: identifier, such as ``MA0139.1``.
        frequencies: float64 ``(width, 4)``, rows sum to 1.
        num_sites: sites that the frequencies were counted on (a weight of pseudocounts).
        other_name: a second name, such as ``CTCF``, or empty.
    """

    name: str
    frequencies: FloatArray
    num_sites: float = 20.0
    other_name: str = ""

    @property
    def width(self) -> int:
        """Number of bases."""
        return len(self.frequencies)

    @property
    def label(self) -> str:
        """The name with the second name behind it."""
        return f"{self.name} {self.other_name}".strip()

    @property
    def consensus(self) -> str:
        """The most frequent base at each place (ties: the first of A, C, G, T)."""
        return "".join("ACGT"[i] for i in self.frequencies.argmax(1))

    def reverse_complement(self) -> Motif:
        """Give the motif as read on the other strand."""
        return Motif(self.name, self.frequencies[::-1, ::-1], self.num_sites, self.other_name)


def read_motifs(path: Path | str) -> list[Motif]:
    """Read all motifs of a MEME, JASPAR or TRANSFAC file, in order.

    JASPAR and TRANSFAC hold counts, whose largest column sum is the number of sites. RNA letters are read as DNA.

    Raises:
        InputError: the file is missing, holds no motif or something else (named), or a matrix is damaged (with line).
    """
    path = Path(path)
    with open_text(path) as file:
        lines = [(number, line.strip()) for number, line in enumerate(file, start=1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not lines:
        raise InputError(f"{path}: the file is empty.")
    readers = {"MEME": _read_meme, "TRANSFAC": _read_transfac, "JASPAR": _read_jaspar}
    kind = _kind(lines, path)
    motifs = list(readers[kind](lines, path))
    if not motifs:
        raise InputError(f"{path}: a {kind} file without a motif.")
    names = [motif.name for motif in motifs]
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise InputError(f"{path}: two motifs are called '{twice}'; rename one.")
    return motifs


def choose(motifs: Sequence[Motif], names: Sequence[str]) -> list[Motif]:
    """Pick motifs by their first or second name, in the order asked for.

    Raises:
        UsageError: there is none of this name.
    """
    found = []
    for name in names:
        own = [motif for motif in motifs if name in (motif.name, motif.other_name)]
        if not own:
            known = [word for motif in motifs for word in (motif.name, motif.other_name) if word]
            raise UsageError(f"no motif '{name}'{nearest(name, known)} among {len(motifs)} motifs.")
        found += own
    return found


def write_meme(path: Path, motifs: Iterable[Motif]) -> None:
    """Write motifs as MEME text, uniform background, atomically."""
    parts = ["MEME version 4\n\nALPHABET= ACGT\n\nstrands: + -\n"]
    parts.append("Background letter frequencies\nA 0.25 C 0.25 G 0.25 T 0.25\n")
    for motif in motifs:
        rows = "\n".join(" ".join(f"{value:.6f}" for value in row) for row in motif.frequencies)
        head = f"letter-probability matrix: alength= 4 w= {motif.width} nsites= {motif.num_sites:g} E= 0"
        parts.append(f"MOTIF {motif.label}\n{head}\n{rows}\n")
    write_atomically(Path(path), "\n".join(parts))


def _kind(lines: Lines, path: Path) -> str:
    first = lines[0][1]
    if first.startswith("MEME version"):
        return "MEME"
    texts = [line for _, line in lines]
    if any(re.match(r"P[0O]\s+A\s+C\s+G\s+[TU]\b", line) for line in texts):
        return "TRANSFAC"
    if first.startswith(">") and len(lines) > 1 and re.match(rf"(?:[ACGTU]\s*)?\[?\s*{_NUMBER}(\s|\]|$)", texts[1]):
        return "JASPAR"
    if any(line.startswith(("MOTIF ", "letter-probability matrix")) for line in texts):
        raise InputError(f"{path}:1: looks like MEME but does not begin with 'MEME version 4'; add that line.")
    what = "a FASTA file" if first.startswith(">") else "no motif file"
    raise InputError(f"{path}: {what}; motifs are read from MEME (version 4), JASPAR and TRANSFAC files.")


def _motif(name: tuple[str, str], rows: Sequence[Sequence[float]], where: str, num_sites: float | None) -> Motif:
    """Check a matrix of counts (num_sites None) or frequencies and make its motif."""
    table = np.array(rows, dtype=np.float64)
    if not len(table):
        raise InputError(f"{where}: motif '{name[0]}' has no columns.")
    sums = table.sum(1)
    if (table < 0).any() or not np.isfinite(table).all() or (sums <= 0).any():
        raise InputError(f"{where}: motif '{name[0]}' has a negative number or a place without any letter.")
    if num_sites is not None and np.abs(sums - 1).max() > ROUNDING:
        place = int(np.abs(sums - 1).argmax()) + 1
        raise InputError(f"{where}: motif '{name[0]}': the frequencies at place {place} sum to {sums[place - 1]:.3g}.")
    return Motif(name[0], table / sums[:, None], float(sums.max()) if num_sites is None else num_sites, name[1])


def _numbers(text: str, where: str, count: int | None = None) -> list[float]:
    words = text.split()
    if (count is not None and len(words) != count) or not all(re.fullmatch(_NUMBER, word) for word in words):
        wanted = "numbers" if count is None else f"{count} numbers"
        raise InputError(f"{where}: {wanted} of a matrix were expected, found '{text[:60]}'.")
    return [float(word) for word in words]


def _names(text: str, where: str) -> tuple[str, str]:
    words = text.split(None, 1)
    if not words:
        raise InputError(f"{where}: a motif without a name.")
    return words[0], words[1] if len(words) > 1 else ""


def _read_meme(lines: Lines, path: Path) -> Iterator[Motif]:
    alphabet = next((line.split("=", 1)[1].strip() for _, line in lines if line.startswith("ALPHABET=")), "ACGT")
    if alphabet not in ("ACGT", "ACGU"):
        raise InputError(f"{path}: motifs over the alphabet '{alphabet}'; motifs of DNA (ACGT) are needed.")
    name: tuple[str, str] | None = None
    place, before = 0, 0
    while place < len(lines):
        number, line = lines[place]
        where = f"{path}:{number}"
        place += 1
        if line.startswith("MOTIF"):
            if name is not None:
                raise InputError(f"{path}:{before}: motif '{name[0]}' has no letter-probability matrix.")
            name, before = _names(line[5:], where), number
        elif line.startswith("letter-probability matrix") and name is not None:
            width, sites = (re.search(rf"\b{key}=\s*({_NUMBER})", line) for key in ("w", "nsites"))
            end = place
            while end < len(lines) and re.match(rf"{_NUMBER}\s", lines[end][1]):
                end += 1
            rows = [_numbers(text, f"{path}:{at}", 4) for at, text in lines[place:end]]
            if width is not None and int(float(width[1])) != len(rows):
                raise InputError(f"{where}: motif '{name[0]}' is said to have {width[1]} places but has {len(rows)}.")
            yield _motif(name, rows, where, float(sites[1]) if sites else 20.0)
            name, place = None, end
    if name is not None:
        raise InputError(f"{path}:{before}: motif '{name[0]}' has no letter-probability matrix.")


def _read_jaspar(lines: Lines, path: Path) -> Iterator[Motif]:
    starts = [place for place, (_, line) in enumerate(lines) if line.startswith(">")]
    for start, end in zip(starts, [*starts[1:], len(lines)]):
        number, head = lines[start]
        name = _names(head[1:], f"{path}:{number}")
        if end - start != 5:
            raise InputError(f"{path}:{number}: motif '{name[0]}' has {end - start - 1} lines, not one for each base.")
        columns = []
        for letter, (at, text) in zip("ACGT", lines[start + 1 : end]):
            given = re.match(r"([A-Za-z])\s*", text)
            if given and given[1].upper().replace("U", "T") != letter:
                raise InputError(f"{path}:{at}: the line of {letter} was expected, found '{text[:40]}'.")
            rest = text[given.end() :] if given else text
            columns.append(_numbers(rest.replace("[", " ").replace("]", " "), f"{path}:{at}"))
        if len(set(map(len, columns))) != 1:
            raise InputError(f"{path}:{number}: the lines of motif '{name[0]}' have different numbers of places.")
        yield _motif(name, list(zip(*columns)), f"{path}:{number}", None)


def _read_transfac(lines: Lines, path: Path) -> Iterator[Motif]:
    fields: dict[str, str] = {}
    rows: list[list[float]] | None = None
    number = 1
    for number, line in lines:
        key, _, rest = line.partition(" ")
        where = f"{path}:{number}"
        if key in ("AC", "ID", "NA"):
            fields[key] = rest.strip()
        elif key in ("P0", "PO"):
            rows = []
        elif rows is not None and key.isdigit():
            rows.append(_numbers(" ".join(rest.split()[:4]), where, 4))
        elif key == "//" and rows is not None:
            yield _motif(_transfac_names(fields, where), rows, where, None)
            fields, rows = {}, None
    if rows is not None:
        raise InputError(f"{path}:{number}: the last motif does not end with '//'; the file is cut off.")


def _transfac_names(fields: dict[str, str], where: str) -> tuple[str, str]:
    words = [fields[key] for key in ("AC", "ID", "NA") if fields.get(key)]
    if not words:
        raise InputError(f"{where}: a motif without a name (AC or ID).")
    return words[0].split()[0], words[1] if len(words) > 1 else ""
