"""Fixed-length k-mers: non-overlapping with single bases (Nucleotide Transformer) and overlapping (DNABERT).

`KmerTokenizer` cuts k-mers from the left end of every stretch of A, C, G, T and spells what is left over (and N) with
single letters. `OverlappingKmerTokenizer` slides by one base. Both reproduce the published ids for any text; `LAYOUTS`
lists how the published vocabularies differ.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from longstrand.errors import TokenizerError, one_of
from longstrand.tokenization.base import IntArray, SpecialIds, SpecialTokenTemplate, Tokenizer
from longstrand.tokenization.basic_words import split_words
from longstrand.tokenization.files import ROLES

MAX_K = 10
Unknown = Literal["token", "error"]

_BASE, _LETTER, _SPACE, _UNKNOWN = 0, 4, 5, 6


@dataclass(frozen=True, slots=True)
class VocabularyLayout:
    """How a published k-mer vocabulary is ordered.

    Attributes:
        specials: role and text of the tokens in front, in the order of their ids.
        letters: order of the bases in the product that lists the k-mers.
        last: special tokens behind the k-mers.
        brackets: True if a text is wrapped ``[CLS]`` text ``[SEP]``; False if only ``<cls>`` stands in front.
    """

    specials: tuple[tuple[str, str], ...]
    letters: str
    last: tuple[tuple[str, str], ...] = ()
    brackets: bool = True


_BRACKETS = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
_ANGLES = {"unk": "<unk>", "pad": "<pad>", "mask": "<mask>", "cls": "<cls>"}
_ENDS = (("eos", "<eos>"), ("bos", "<bos>"))

LAYOUTS = {
    "longstrand": VocabularyLayout(tuple(_BRACKETS.items()), "ACGT"),
    "dnabert": VocabularyLayout(
        tuple((role, _BRACKETS[role]) for role in ("pad", "unk", "cls", "sep", "mask")), "ATCG"
    ),
    "nt_v1": VocabularyLayout(tuple(_ANGLES.items()), "ATCG", brackets=False),
    "nt_v1_jax": VocabularyLayout(tuple(_ANGLES.items()), "ATCG", last=_ENDS, brackets=False),
    "nt_v2": VocabularyLayout((*_ANGLES.items(), *_ENDS), "ATCG", brackets=False),
}


def make_kmer(
    k: int,
    *,
    overlapping: bool = False,
    layout: str = "longstrand",
    unknown: Unknown = "token",
    append_eos: bool = False,
) -> KmerTokenizer | OverlappingKmerTokenizer:
    """Build a k-mer tokenizer from nothing.

    Args:
        k: 1 to 10 bases; k = 1 is one token per base.
        overlapping: slide by one base instead of by k (k of at least 2).
        layout: order of the vocabulary, a key of `LAYOUTS`.
        unknown: ``token`` gives the unknown token for letters outside the vocabulary, as the tokenizers on the hub do;
            ``error`` refuses them, as the JAX code of Nucleotide Transformer does.
        append_eos: end every text with ``<eos>`` (off in all published Nucleotide Transformers).

    Raises:
        UsageError: the layout is unknown.
        ValueError: k is out of range, or ``append_eos`` is asked of a layout without ``<eos>``.
    """
    plan = LAYOUTS[one_of(layout, LAYOUTS, "k-mer layout")]
    if not 1 <= k <= MAX_K:
        raise ValueError(f"k is 1 to {MAX_K}, got {k}.")
    tokens = [text for _, text in plan.specials]
    if k > 1:
        tokens += ["".join(letters) for letters in itertools.product(plan.letters, repeat=k)]
    if not overlapping or k == 1:
        tokens += [*plan.letters, "N"]
    tokens += [text for _, text in plan.last]
    return kmer_from_vocab({text: i for i, text in enumerate(tokens)}, unknown=unknown, append_eos=append_eos)


def kmer_from_vocab(
    vocab: dict[str, int], *, unknown: Unknown = "token", append_eos: bool = False
) -> KmerTokenizer | OverlappingKmerTokenizer:
    """Recognise a k-mer vocabulary: single letters beside the k-mers mean non-overlapping, none mean overlapping.

    Raises:
        TokenizerError: it is no complete k-mer vocabulary.
    """
    words = [text for text in vocab if re.fullmatch("[A-Z]+", text)]
    k = max((len(text) for text in words), default=0)
    whole = {text for text in words if len(text) == k and not set(text) - set("ACGT")}
    singles = [text for text in words if len(text) == 1]
    if not 1 <= k <= MAX_K or len(whole) != 4**k or len(words) - len(singles) != (len(whole) if k > 1 else 0):
        raise TokenizerError(
            f"this is no k-mer vocabulary: of {4 ** min(k, MAX_K)} words of {k} bases it has {len(whole)}, "
            f"among {len(words)} words in capital letters."
        )
    if singles:
        return KmerTokenizer(vocab, k, unknown=unknown, append_eos=append_eos)
    return OverlappingKmerTokenizer(vocab, k)


def _special_ids(vocab: dict[str, int]) -> SpecialIds:
    brackets = "[CLS]" in vocab
    name = "[{}]" if brackets else "<{}>"
    ids = {role: vocab.get(name.format(role.upper() if brackets else role)) for role in ROLES}
    extra = frozenset(vocab[text] for text in ("<eos>", "<bos>") if text in vocab)
    return SpecialIds(**ids, extra=extra)


def _template(vocab: dict[str, int], special: SpecialIds, append_eos: bool) -> SpecialTokenTemplate:
    if special.cls is None:
        raise TokenizerError("the k-mer vocabulary has neither [CLS] nor <cls>.")
    if special.sep is not None:
        end = (special.sep,)
        return SpecialTokenTemplate((special.cls,), end, end, end)
    if not append_eos:
        return SpecialTokenTemplate((special.cls,))
    if "<eos>" not in vocab:
        raise ValueError("append_eos needs a vocabulary with <eos> (layout nt_v2 or nt_v1_jax).")
    end = (vocab["<eos>"],)
    return SpecialTokenTemplate((special.cls,), end, end, end)


def _code_points(text: str) -> npt.NDArray[np.uint8]:
    """List the code of each letter; 128 is every one beyond ASCII."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return np.minimum(points, 128).astype(np.uint8)


def _grid(length: int, k: int) -> IntArray:
    """List start and end of the words of a text of bases, its last letters by themselves."""
    covered = length // k * k
    first = np.append(np.arange(0, covered, k, dtype=np.int32), np.arange(covered, length, dtype=np.int32))
    grid: IntArray = (
        np.stack((first, np.append(first[1:], np.int32(length))), axis=1) if length else first.reshape(0, 2)
    )
    grid.flags.writeable = False
    return grid


_short_grid = lru_cache(maxsize=64)(_grid)
_SHORT = 1 << 14


def _id_table(vocab: dict[str, int], k: int) -> IntArray:
    """List the id of each k-mer by its number in base 4 with A, C, G, T = 0, 1, 2, 3."""
    return np.array([vocab["".join(letters)] for letters in itertools.product("ACGT", repeat=k)], dtype=np.int32)


def _post_processor(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """Express the template as a ``TemplateProcessing`` post-processor; None if nothing is added."""
    template, names = tokenizer.template, tokenizer.token_strings

    def special(ids: tuple[int, ...], type_id: int) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": names[i], "type_id": type_id}} for i in ids]

    first, second = ({"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}})
    single = [*special(template.prefix, 0), first, *special(template.suffix, 0)]
    pair = [*special(template.prefix, 0), first, *special(template.pair_middle or (), 0)]
    pair += [second, *special(template.pair_suffix, 1)]
    used = {*template.prefix, *template.suffix, *(template.pair_middle or ()), *template.pair_suffix}
    if not used:
        return None
    tokens = {names[i]: {"id": names[i], "ids": [i], "tokens": [names[i]]} for i in sorted(used)}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


class _KmerBase(Tokenizer):
    """What both k-mer tokenizers share."""

    kind = "kmer"

    def __init__(self, vocab: dict[str, int], k: int, *, append_eos: bool = False) -> None:
        special = _special_ids(vocab)
        super().__init__(vocab, special, _template(vocab, special, append_eos))
        if special.unk is None:
            raise TokenizerError("the k-mer vocabulary has neither [UNK] nor <unk>.")
        self.k = k
        self.append_eos = append_eos
        self._unk = special.unk
        self._table = _id_table(vocab, k)
        self._power = (4 ** np.arange(k - 1, -1, -1)).astype(np.int32)
        literals = sorted((self.token_strings[i] for i in self.special_ids), key=len, reverse=True)
        self._literal = re.compile("(" + "|".join(map(re.escape, literals)) + ")")
        self._opening = literals[0][0]

    def _options(self) -> dict[str, Any]:
        return {"kind": "kmer", "k": self.k, "overlapping": self.overlapping, "append_eos": self.append_eos}

    def _identity(self) -> Any:
        return [self._options(), self.vocab]

    def _pre_tokenizer(self) -> dict[str, Any]:
        return {"type": "WhitespaceSplit"}

    def _definition(self) -> str:
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        definition = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": i, "content": self.token_strings[i], **plain, "special": True} for i in sorted(self.special_ids)
            ],
            "normalizer": None,
            "pre_tokenizer": self._pre_tokenizer(),
            "post_processor": _post_processor(self),
            "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": self.vocab, "unk_token": self.token_strings[self._unk]},
        }
        return json.dumps(definition, ensure_ascii=False, indent=1)


class KmerTokenizer(_KmerBase):
    """Non-overlapping k-mers with single letters for what does not fill one; k = 1 is one token per base.

    A stretch of A, C, G, T is cut in k-mers from its own left end, the remainder spelled in single letters; N and
    other letters of the vocabulary are tokens of their own; a run of anything else is one unknown token; white
    space vanishes.
    """

    def __init__(self, vocab: dict[str, int], k: int, *, unknown: Unknown = "token", append_eos: bool = False) -> None:
        super().__init__(vocab, k, append_eos=append_eos)
        self.unknown = one_of(unknown, ("token", "error"), "treatment of unknown letters")
        self._single = np.full(129, self._unk, dtype=np.int32)
        self._class = np.full(129, _UNKNOWN, dtype=np.uint8)
        for code in range(128):
            if chr(code).isspace():
                self._class[code] = _SPACE
        for text, index in vocab.items():
            if len(text) == 1:
                self._single[ord(text)] = index
                self._class[ord(text)] = "ACGT".index(text) if text in "ACGT" else _LETTER

    def _options(self) -> dict[str, Any]:
        return super()._options() | {"unknown": self.unknown}

    def _pre_tokenizer(self) -> dict[str, Any]:
        letters = "".join(sorted(text for text in self.vocab if len(text) == 1))
        pattern = f"[ACGT]{{{self.k}}}|[{letters}]|[^{letters}]+"
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        return {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, split]}

    def encode_ids(self, text: str) -> tuple[IntArray, IntArray]:
        """Tokenize without adding special tokens; literal special tokens in the text become their ids.

        Raises:
            TokenizerError: ``unknown="error"`` and the text has a letter outside the vocabulary.
        """
        if self._opening not in text:
            return self._encode_plain(text, 0)
        ids, offsets, start = [], [], 0
        for part in self._literal.split(text):
            if part in self.vocab and self.vocab[part] in self.special_ids:
                self._check_grid(text, part, start)
                piece = np.array([self.vocab[part]], dtype=np.int32), np.array([[0, len(part)]], dtype=np.int32)
            else:
                piece = self._encode_plain(part, start)
            ids.append(piece[0])
            offsets.append(piece[1] + np.int32(start))
            start += len(part)
        return np.concatenate(ids), np.concatenate(offsets)

    def _check_grid(self, text: str, literal: str, start: int) -> None:
        """With ``unknown="error"``, refuse a literal that the JAX code would cut in pieces: one off the k-mer grid."""
        left = text.rfind("N", 0, start) + 1
        if self.unknown == "error" and (len(literal) != self.k or (start - left) % self.k):
            raise TokenizerError(f"'{literal}' at letter {start + 1} does not stand on the {self.k}-mer grid.")

    def _encode_plain(self, text: str, shift: int) -> tuple[IntArray, IntArray]:
        points = _code_points(text)
        classes = self._class.take(points)
        if not text.isascii():
            classes[[i for i, letter in enumerate(text) if ord(letter) > 127 and letter.isspace()]] = _SPACE
        if self.unknown == "error" and (classes > _LETTER).any():
            where = int((classes > _LETTER).argmax())
            raise TokenizerError(
                f"letter '{text[where]}' at position {shift + where + 1} is not in the k-mer vocabulary."
            )
        n, k = len(points), self.k
        if classes.max(initial=0) >= _LETTER:
            first, end, whole_mask = _cut_runs(classes, classes < _LETTER, k)
            ids = self._single[points[first]]
            ids[whole_mask] = self._words(classes, first[whole_mask])
            return ids, np.stack((first, end), axis=1)
        whole, covered = n // k, n // k * k
        ids = self._table[classes[:covered].reshape(whole, k).astype(np.int32) @ self._power]
        if covered < n:
            ids = np.append(ids, self._single[points[covered:]])
        return ids, (_short_grid if n <= _SHORT else _grid)(n, k)

    def _words(self, classes: npt.NDArray[np.uint8], first: IntArray) -> IntArray:
        codes = classes[first[:, None] + np.arange(self.k)].astype(np.int32) @ self._power
        words: IntArray = self._table[codes]
        return words


def _cut_runs(
    classes: npt.NDArray[np.uint8], is_base: npt.NDArray[np.bool_], k: int
) -> tuple[IntArray, IntArray, npt.NDArray[np.bool_]]:
    """Find token starts and ends in text with N or unknown letters, and which tokens are whole k-mers."""
    n = len(classes)
    kinds = np.where(is_base, np.uint8(_BASE), classes)
    run_starts = np.flatnonzero(np.concatenate(([True], kinds[1:] != kinds[:-1])))
    run_lengths = np.diff(np.concatenate((run_starts, [n])))
    position = np.arange(n) - np.repeat(run_starts, run_lengths)
    covered = np.repeat(run_lengths // k * k, run_lengths)
    whole = is_base & (position % k == 0) & (position < covered)
    single = (is_base & (position >= covered)) | (classes == _LETTER)
    unknown = (classes == _UNKNOWN) & (position == 0)
    first = np.flatnonzero(whole | single | unknown).astype(np.int32)
    length = np.where(whole, k, np.where(unknown, np.repeat(run_lengths, run_lengths), 1))
    return first, first + length[first].astype(np.int32), whole[first]


class OverlappingKmerTokenizer(_KmerBase):
    """K-mers that slide by one base, n - k + 1 of them, as DNABERT's; any k-mer with another letter is unknown.

    White space and punctuation follow BERT's word splitting, which DNABERT applies to the spaced k-mers: such a k-mer
    gives one unknown token per word in it (none if it is all white space).
    """

    overlapping = True

    def __init__(self, vocab: dict[str, int], k: int) -> None:
        super().__init__(vocab, k)
        self._class = np.full(129, 4, dtype=np.uint8)
        self._class[[ord(letter) for letter in "ACGT"]] = range(4)

    def encode_ids(self, text: str) -> tuple[IntArray, IntArray]:
        """Tokenize without adding special tokens; a text shorter than k has no tokens."""
        count = len(text) - self.k + 1
        if count <= 0:
            return np.empty(0, dtype=np.int32), np.empty((0, 2), dtype=np.int32)
        if not text.isascii() or not text.isalnum():
            return self._encode_words(text, count)
        classes = self._class[np.frombuffer(text.encode("ascii"), dtype=np.uint8)]
        code = np.zeros(count, dtype=np.int32)
        for j in range(self.k):
            code *= 4
            code += classes[j : j + count]
        ids = self._table[np.minimum(code, len(self._table) - 1)]
        other = classes > 3
        if other.any():
            before = np.concatenate(([0], np.cumsum(other)))
            ids[before[self.k :] > before[:count]] = self._unk
        starts = np.arange(count, dtype=np.int32)
        return ids, np.stack((starts, starts + np.int32(self.k)), axis=1)

    def _encode_words(self, text: str, count: int) -> tuple[IntArray, IntArray]:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for start in range(count):
            kmer = text[start : start + self.k]
            if kmer in self.vocab:
                ids.append(self.vocab[kmer])
                offsets.append((start, start + self.k))
                continue
            position = start
            for part in self._literal.split(kmer):
                if part in self.vocab:
                    ids.append(self.vocab[part])
                    offsets.append((position, position + len(part)))
                else:
                    words = split_words(part)
                    ids += [self._unk] * len(words)
                    offsets += [(position + a, position + b) for a, b in words]
                position += len(part)
        return np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int32).reshape(-1, 2)

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Write ids as text: a k-mer that continues the one before adds its last base, any other its whole text."""
        parts: list[str] = []
        previous = ""
        for i in map(int, ids):
            token = self.token_strings[i]
            if i in self.special_ids:
                parts.append("" if skip_special_tokens else token)
                previous = ""
            else:
                parts.append(token[-1] if previous and previous[1:] == token[:-1] else token)
                previous = token
        return "".join(parts)


def read_vocab_file(path: Path) -> dict[str, int]:
    """Read ``vocab.txt``, one token a line, ids in order.

    Raises:
        TokenizerError: a token occurs twice or the file is empty.
    """
    lines: Sequence[str] = path.read_text(encoding="utf-8").splitlines()
    tokens = [line.strip() for line in lines]
    while tokens and not tokens[-1]:
        tokens.pop()
    vocab = {token: i for i, token in enumerate(tokens)}
    if not tokens or len(vocab) != len(tokens):
        raise TokenizerError(f"{path}: not a vocabulary; it is empty or names a token twice.")
    return vocab
