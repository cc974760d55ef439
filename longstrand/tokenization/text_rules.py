"""What a ``tokenizer.json`` does to a text around its byte-pair model, read into rules that the own engine can follow.

Known: special tokens written out in the text, stripping of white space, a run of one letter that becomes one token
(GENA's ``N{10,}`` to ``-``), splitting at white space, and splits around letters that never merge (which change
nothing). Anything else is `Unsupported`, and the ``tokenizers`` library does the work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# White space as Unicode defines it (property White_Space), which the library follows; Python's str.isspace differs.
WHITE_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_SPACES = re.compile(f"[{WHITE_SPACE}]+")
_WHITE = frozenset(WHITE_SPACE)


class Unsupported(Exception):
    """The definition has a feature that the own engine cannot express exactly."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text: a word for the model, or (``token`` not None) one token that stands for it."""

    start: int
    end: int
    token: str | None = None


@dataclass(frozen=True, slots=True)
class TextRules:
    """How a text is cut before the model sees it.

    Attributes:
        literals: special tokens that are recognised inside a text.
        openings: their first characters.
        strip_left, strip_right: drop white space at the ends of what lies between literals.
        gap: (letter, shortest run, token): such a run becomes one token.
        split_spaces: white space separates words and vanishes.
    """

    literals: re.Pattern[str] | None
    openings: str
    strip_left: bool = False
    strip_right: bool = False
    gap: tuple[str, int, str] | None = None
    split_spaces: bool = False

    def is_plain(self, text: str) -> bool:
        """Say whether the model sees the text as it is; quick, and may say False for plain text."""
        for opening in self.openings:
            if opening in text:
                return False
        if not text or (self.strip_left and text[0] in _WHITE) or (self.strip_right and text[-1] in _WHITE):
            return False
        if self.gap is not None and self.gap[0] in text and self.gap[0] * self.gap[1] in text:
            return False
        return not (self.split_spaces and _SPACES.search(text))

    def pieces(self, text: str) -> Iterator[Piece]:
        """Cut a text into words and tokens, left to right."""
        at = 0
        for found in self.literals.finditer(text) if self.literals is not None else ():
            yield from self._between(text, at, found.start())
            yield Piece(found.start(), found.end(), found.group())
            at = found.end()
        yield from self._between(text, at, len(text))

    def _between(self, text: str, start: int, end: int) -> Iterator[Piece]:
        while self.strip_left and start < end and text[start] in _WHITE:
            start += 1
        while self.strip_right and start < end and text[end - 1] in _WHITE:
            end -= 1
        if self.gap is None:
            yield from self._words(text, start, end)
            return
        letter, shortest, token = self.gap
        for run in re.compile(f"{re.escape(letter)}{{{shortest},}}").finditer(text, start, end):
            yield from self._words(text, start, run.start())
            yield Piece(run.start(), run.end(), token)
            start = run.end()
        yield from self._words(text, start, end)

    def _words(self, text: str, start: int, end: int) -> Iterator[Piece]:
        if self.split_spaces:
            for space in _SPACES.finditer(text, start, end):
                if start < space.start():
                    yield Piece(start, space.start())
                start = space.end()
        if start < end:
            yield Piece(start, end)


def read_rules(parsed: dict[str, Any], merging: frozenset[str]) -> TextRules:
    """Read the rules of a parsed ``tokenizer.json`` whose merges use the letters ``merging``.

    Raises:
        Unsupported: naming the feature.
    """
    normalizer = parsed.get("normalizer")
    literals = _literals(parsed.get("added_tokens") or [], normalized=normalizer is not None)
    pattern = re.compile("|".join(map(re.escape, sorted(literals, key=len, reverse=True)))) if literals else None
    settings: dict[str, Any] = {"literals": pattern, "openings": "".join(sorted({text[0] for text in literals}))}
    for step in _steps(normalizer, "normalizers"):
        _read_normalizer(step, settings, parsed["model"]["vocab"], merging)
    for step in _steps(parsed.get("pre_tokenizer"), "pretokenizers"):
        _read_splitter(step, settings, merging)
    return TextRules(**settings)


def check_model(model: dict[str, Any]) -> None:
    """Refuse options of the byte-pair model that change its result.

    Raises:
        Unsupported: naming the option.
    """
    for option in (
        "dropout",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "fuse_unk",
        "byte_fallback",
        "ignore_merges",
    ):
        if model.get(option):
            raise Unsupported(f"its model has {option}")
    if model.get("unk_token") is None:
        raise Unsupported("its model has no unknown token")


def _steps(part: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return list(part[name]) if part.get("type") == "Sequence" else [part]


def _literals(added: list[dict[str, Any]], *, normalized: bool) -> list[str]:
    for token in added:
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word"):
            raise Unsupported(f"its added token '{token['content']}' takes in white space or whole words")
        if token.get("normalized") and normalized:
            raise Unsupported(f"its added token '{token['content']}' is looked for after normalisation")
    return [token["content"] for token in added if token["content"]]


def _read_normalizer(
    step: dict[str, Any], settings: dict[str, Any], vocab: dict[str, int], merging: frozenset[str]
) -> None:
    kind = step.get("type")
    if kind == "Strip":
        settings["strip_left"] = bool(step.get("strip_left")) or settings.get("strip_left", False)
        settings["strip_right"] = bool(step.get("strip_right")) or settings.get("strip_right", False)
        return
    pattern = step.get("pattern", {}).get("Regex", "") if kind == "Replace" else ""
    run = re.fullmatch(r"([A-Za-z])\{(\d+),\}", pattern)
    token = step.get("content", "")
    alone = len(token) == 1 and token in vocab and token not in merging and token not in _WHITE
    if run is None or not alone or "gap" in settings or int(run[2]) < 1:
        raise Unsupported(f"its normaliser {kind} {pattern or step.get('pattern', '')} is not known".replace("  ", " "))
    settings["gap"] = (run[1], int(run[2]), token)


def _read_splitter(step: dict[str, Any], settings: dict[str, Any], merging: frozenset[str]) -> None:
    kind = step.get("type")
    words_only = all(letter.isalnum() or letter == "_" for letter in merging)
    if (kind == "WhitespaceSplit" and not merging & _WHITE) or (kind == "Whitespace" and words_only):
        settings["split_spaces"] = True
    elif kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        pattern = step.get("pattern", {})
        letters = pattern.get("String") or (re.fullmatch(r"\[([-A-Za-z]+)\]", pattern.get("Regex", "")) or ["", ""])[1]
        if not letters or "-" in letters[1:] or set(letters) & merging or len(pattern.get("String", "-")) != 1:
            raise Unsupported(f"its splitting at {pattern} is not known")
    else:
        raise Unsupported(f"its pre-tokeniser {kind} is not known")
