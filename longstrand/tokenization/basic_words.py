"""BERT's splitting of text into words at white space, punctuation and Chinese characters."""

from __future__ import annotations

import unicodedata

_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def split_words(text: str) -> list[tuple[int, int]]:
    """Give start and end of each word; punctuation and CJK characters are words of their own, controls vanish."""
    words: list[tuple[int, int]] = []
    open_word = False
    for i, letter in enumerate(text):
        kind = _kind(letter)
        if kind == "word":
            if open_word:
                words[-1] = (words[-1][0], i + 1)
            else:
                words.append((i, i + 1))
            open_word = True
        elif kind == "alone":
            words.append((i, i + 1))
            open_word = False
        elif kind == "space":
            open_word = False
    return words


def _kind(letter: str) -> str:
    """Sort a character into ``space``, ``control`` (dropped), ``alone`` (a word of its own) or ``word``."""
    code = ord(letter)
    category = unicodedata.category(letter)
    if letter in " \t\n\r" or category == "Zs":
        return "space"
    if code in (0, 0xFFFD) or category.startswith("C"):
        return "control"
    ascii_mark = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    if ascii_mark or category.startswith("P") or any(low <= code <= high for low, high in _CJK):
        return "alone"
    return "word"
