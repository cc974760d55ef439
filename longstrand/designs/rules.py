"""What a design must obey: bases that stay, the number of edits, GC, words it may not and words it must hold.

Every rule is hard. A start that breaks some is first repaired with as few edits as can be; what cannot be repaired is
refused before anything is scored, and the two rules that exclude each other are named.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Self

import numpy as np
import numpy.typing as npt

from longstrand.errors import UsageError
from longstrand.explain.perturb import BASES, substituted
from longstrand.genome.sequence import IUPAC, reverse_complement

Values = Callable[[Sequence[str]], Sequence[float]]
MOST_TRIES = 200
"""Placements of motifs that are tried before they count as impossible."""


class Unmet(Exception):
    """No repair was found; the arguments name the rules that stay broken."""


@dataclass(frozen=True, eq=False)
class Rules:
    """The rules for designs of one start.

    Attributes:
        start: A, C, G, T and N.
        fixed: bool ``(num_bases,)``, bases that stay.
        max_edits: most bases that differ from the start; None: any number.
        gc: lowest and highest share of G and C among A, C, G and T.
        forbidden: words of IUPAC letters that neither strand may hold.
        motifs: words of A, C, G, T that one of the strands must hold.
    """

    start: str
    fixed: npt.NDArray[np.bool_]
    max_edits: int | None = None
    gc: tuple[float, float] | None = None
    forbidden: tuple[str, ...] = ()
    motifs: tuple[str, ...] = ()

    @cached_property
    def _sites(self) -> re.Pattern[str] | None:
        both = sorted({word for one in self.forbidden for word in (one, reverse_complement(one))})
        words = ("".join(f"[{IUPAC[letter]}]" for letter in word) for word in both)
        return re.compile(f"(?=(?:{'|'.join(words)}))") if both else None

    @cached_property
    def _reach(self) -> int:
        return max(map(len, self.forbidden), default=1) - 1

    def edits(self, text: str) -> list[int]:
        """List the bases (from 0) that differ from the start."""
        return [place for place, (new, old) in enumerate(zip(text, self.start)) if new != old]

    def broken(self, text: str) -> dict[str, int]:
        """Count by how much a text breaks each rule: bases, sites, motifs; rules that hold are left out.

        Nothing here changes a fixed base, so these are not counted.
        """
        edits = self.edits(text)
        held = [any(word in text for word in (one, reverse_complement(one))) for one in self.motifs]
        found = {
            "max_edits": 0 if self.max_edits is None else max(0, len(edits) - self.max_edits),
            "gc": self._off_gc(*_composition(text)),
            "forbidden": 0 if self._sites is None else sum(1 for _ in self._sites.finditer(text)),
            "motifs": held.count(False),
        }
        return {name: number for name, number in found.items() if number}

    def _off_gc(self, num_gc: int, known: int) -> int:
        """Count the bases that are missing to the range of GC; a range that no count of bases hits is never met."""
        if self.gc is None:
            return 0
        low, high = math.ceil(self.gc[0] * known - 1e-9), math.floor(self.gc[1] * known + 1e-9)
        return max(low - num_gc, num_gc - high, 0)

    def substitutions(self, text: str, places: Sequence[int] | None = None) -> Iterator[tuple[int, str]]:
        """List the substitutions (base, letter) after which a text that obeys still does, by base, then letter."""
        num_edits, (num_gc, known) = len(self.edits(text)), _composition(text)
        for place in np.flatnonzero(~self.fixed).tolist() if places is None else places:
            old, first = text[place], self.start[place]
            head, tail = text[max(0, place - self._reach) : place], text[place + 1 : place + 1 + self._reach]
            for letter in BASES:
                if letter == old or self.fixed[place]:
                    continue
                edits = num_edits + (old == first) - (letter == first)
                gc = num_gc + (letter in "GC") - (old in "GC")
                if self.max_edits is not None and edits > self.max_edits:
                    continue
                if self._off_gc(gc, known + (old not in BASES)):
                    continue
                if self._sites is None or self._sites.search(head + letter + tail) is None:
                    yield place, letter

    def prepare(self, values: Values | None = None) -> tuple[str, Rules]:
        """Put motifs in and repair what the start breaks, with the best values of what obeys.

        Args:
            values: of texts; None: the fewest edits are best, and nothing is scored.

        Returns:
            The text, and rules under which the bases of its motifs stay.

        Raises:
            Unmet: no repair was found.
        """
        return _Repair(self, values).place(self.start, self.fixed, self.motifs)

    def check(self, where: str) -> None:
        """Refuse rules that cannot hold together, without scoring anything.

        Raises:
            UsageError: naming the rules, two of them if two are enough.
        """
        if self.fixed.all():
            raise UsageError(f"{where}: all {len(self.start):,} bases are fixed, so there is nothing to design.")
        if self._can_hold():
            return
        given = [name for name in ("fixed", "max_edits", "gc", "forbidden", "motifs") if self._is_given(name)]
        for size in range(1, len(given) + 1):
            for names in combinations(given, size):
                if not self._only(names)._can_hold():
                    shown = [self._describe(name) for name in names]
                    what = " and ".join(shown) if size > 1 else f"{shown[0]} alone"
                    raise UsageError(
                        f"{where}: no design of {len(self.start):,} bases can obey {what}; loosen one of them."
                    )

    def _can_hold(self) -> bool:
        try:
            self.prepare()
        except Unmet:
            return False
        return True

    def _is_given(self, name: str) -> bool:
        value = getattr(self, name)
        return bool(value.any()) if name == "fixed" else value is not None and value != ()

    def _only(self, names: Sequence[str]) -> Self:
        none: dict[str, object] = {
            "fixed": np.zeros_like(self.fixed), "max_edits": None, "gc": None, "forbidden": (), "motifs": (),
        }  # fmt: skip
        return replace(self, **{name: value for name, value in none.items() if name not in names})  # type: ignore[arg-type]

    def _describe(self, name: str) -> str:
        if name == "fixed":
            return f"fixed ({int(self.fixed.sum()):,} bases)"
        if name == "gc":
            return f"gc ({self.gc[0]:g}-{self.gc[1]:g})"  # type: ignore[index]
        value = getattr(self, name)
        return f"{name} ({value if name == 'max_edits' else ', '.join(value)})"


def _composition(text: str) -> tuple[int, int]:
    """Count G and C, and all known bases."""
    num_gc = text.count("G") + text.count("C")
    return num_gc, num_gc + text.count("A") + text.count("T")


class _Repair:
    """The search for a text that obeys, near the start."""

    def __init__(self, rules: Rules, values: Values | None) -> None:
        self.rules, self.values, self.tries = rules, values, 0

    def place(self, text: str, fixed: npt.NDArray[np.bool_], motifs: Sequence[str]) -> tuple[str, Rules]:
        """Put motifs in one after the other, then repair; the first placements for which all goes well."""
        if not motifs:
            rules = replace(self.rules, fixed=fixed)
            return self.mend(text, rules), rules
        one, rest = motifs[0], motifs[1:]
        broken: set[str] = {"motifs"}
        for changed, start in self._ranked(text, fixed, one):
            self.tries += 1
            if self.tries > MOST_TRIES:
                break
            kept = fixed.copy()
            kept[start : start + len(one)] = True
            try:
                if self.values is not None:
                    _Repair(self.rules, None).place(changed, kept, rest)
                return self.place(changed, kept, rest)
            except Unmet as error:
                broken |= set(error.args)
        raise Unmet(*sorted(broken))

    def _ranked(self, text: str, fixed: npt.NDArray[np.bool_], word: str) -> list[tuple[str, int]]:
        """List the texts with a motif in them and its first base, best first."""
        rules, found = self.rules, {}
        for start in range(len(text) - len(word) + 1):
            for letters in dict.fromkeys((word, reverse_complement(word))):
                changed = text[:start] + letters + text[start + len(word) :]
                span = range(start, start + len(word))
                stays = all(not fixed[place] or changed[place] == text[place] for place in span)
                if stays and "max_edits" not in rules.broken(changed):
                    found.setdefault(changed, start)
        texts = list(found)
        if text in found:
            texts = [text]  # the motif is there already
        elif self.values is not None and texts:
            values = self.values(texts)
            texts = [texts[i] for i in sorted(range(len(texts)), key=lambda i: -values[i])]
        else:
            texts.sort(key=lambda one: (sum(rules.broken(one).values()), len(rules.edits(one))))
        return [(one, found[one]) for one in texts]

    def mend(self, text: str, rules: Rules) -> str:
        """Substitute bases until no site is left and GC is within its range."""
        while broken := rules.broken(text):
            least, texts = sum(broken.values()), []
            for place in np.flatnonzero(~rules.fixed).tolist():
                for letter in BASES.replace(text[place], ""):
                    changed = substituted(text, place, letter)
                    off = sum(rules.broken(changed).values())
                    if off < least:
                        least, texts = off, []
                    if off == least < sum(broken.values()):
                        texts.append(changed)
            if not texts:
                raise Unmet(*broken)
            values = [0.0] if self.values is None else self.values(texts)
            text = texts[int(np.argmax(values))]
        return text
