"""Byte-pair encoding as a ``tokenizer.json`` defines it: GENA-LM, DNABERT-2, and our own.

The own engine encodes whatever it can express exactly; every other definition runs on the ``tokenizers`` library behind
the same interface.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from longstrand.errors import TokenizerError, one_of
from longstrand.tokenization.base import Encoding, IntArray, SpecialIds, SpecialTokenTemplate, Tokenizer
from longstrand.tokenization.files import parse_definition
from longstrand.tokenization.text_rules import TextRules, Unsupported, check_model, read_rules

if TYPE_CHECKING:
    from longstrand.tokenization.engine import BpeEngine

logger = logging.getLogger(__name__)

EngineChoice = Literal["own", "library"]

_NOTHING: IntArray = np.empty(0, dtype=np.int32)
_GAP = "N" * 10

_ROLE_NAMES = {
    "pad": ("[PAD]", "<pad>"),
    "cls": ("[CLS]", "<cls>", "<s>"),
    "sep": ("[SEP]", "<sep>", "</s>"),
    "mask": ("[MASK]", "<mask>"),
    "unk": ("[UNK]", "<unk>"),
}


class BpeTokenizer(Tokenizer):
    """Byte-pair encoding, exact for any text.

    Args:
        definition: the text of a ``tokenizer.json`` whose model is BPE.
        roles: names of the special tokens (``pad_token`` and so on); the usual names are found without it.
        max_tokens: longest input that the published settings allow, or None.
        where: path for error messages.
        engine: ``own`` compiles our engine at the first text; ``library`` encodes simple texts (A, C, G, T, N without
            gaps) with ``tokenizers``, others as before: the same ids and offsets, ready at once, slower on long texts.

    Raises:
        TokenizerError: the definition is not JSON or not BPE, or names a special token that is not in the vocabulary.
    """

    kind = "bpe"

    def __init__(
        self,
        definition: str,
        *,
        roles: Mapping[str, str] | None = None,
        max_tokens: int | None = None,
        where: str = "tokenizer.json",
        engine: EngineChoice = "own",
    ) -> None:
        one_of(engine, ("own", "library"), "tokenizer engine")
        parsed = parse_definition(definition, where)
        if parsed["model"].get("type", "BPE") != "BPE":
            raise TokenizerError(f"{where}: the model is {parsed['model'].get('type')}; only BPE and k-mers are known.")
        if not isinstance(parsed["model"].get("vocab"), dict) or not isinstance(parsed["model"].get("merges"), list):
            raise TokenizerError(f"{where}: damaged; the vocabulary is missing or there is no list of merges.")
        added = {token["content"]: int(token["id"]) for token in parsed.get("added_tokens") or ()}
        vocab = {**parsed["model"]["vocab"], **added}
        flagged = {int(token["id"]) for token in parsed.get("added_tokens") or () if token.get("special")}
        special = _find_roles(vocab, roles or {}, flagged, where)
        super().__init__(vocab, special, _find_template(parsed, vocab, (definition, where)))
        self.definition = definition
        self.max_tokens = max_tokens
        self._parsed: dict[str, Any] = parsed
        self._where = where
        self._engine_choice = engine

    def __reduce__(self) -> tuple[Any, ...]:
        options: dict[str, Any] = {"max_tokens": self.max_tokens, "where": self._where, "engine": self._engine_choice}
        return partial(BpeTokenizer, roles=self.role_names, **options), (self.definition,)

    def _identity(self) -> Any:
        return self._parsed

    def _definition(self) -> str:
        return self.definition

    @cached_property
    def _library(self) -> Any:
        library = _open_library(self.definition, self._where)
        library.no_truncation()
        library.no_padding()
        return library

    @cached_property
    def _engine(self) -> tuple[BpeEngine, TextRules] | None:
        """Compile the own engine, or None if the definition needs the library."""
        from longstrand.tokenization.engine import BpeEngine

        model = self._parsed["model"]
        try:
            check_model(model)
            merges = [_pair(merge) for merge in model["merges"]]
            engine = BpeEngine(model["vocab"], merges, model["vocab"][model["unk_token"]])
            return engine, read_rules(self._parsed, engine.merging_letters)
        except Unsupported as reason:
            logger.warning("%s: %s; encoding with the slower tokenizers library.", self._where, reason)
            return None

    @property
    def uses_engine(self) -> bool:
        """Whether the own engine encodes (True) or the ``tokenizers`` library (False)."""
        return self._engine_choice == "own" and self._engine is not None

    def prepare(self) -> None:
        """Compile the engine now, so that processes forked later share it."""
        self.encode_ids("ACGT")

    def encode_ids(self, text: str) -> tuple[IntArray, IntArray]:
        """Tokenize without adding special tokens; literal special tokens in the text become their ids."""
        compiled = self._engine_for(text)
        if compiled is None:
            found = self._library.encode(text, add_special_tokens=False)
            return np.array(found.ids, dtype=np.int32), np.array(found.offsets, dtype=np.int32).reshape(-1, 2)
        engine, rules = compiled
        if rules.is_plain(text):
            return engine.encode(text, _NOTHING, _NOTHING, self._special_lookup)[:2]
        parts: list[tuple[IntArray, IntArray]] = [(_NOTHING, np.empty((0, 2), dtype=np.int32))]
        for piece in rules.pieces(text):
            if piece.token is not None:
                span = np.array([[piece.start, piece.end]], dtype=np.int32)
                parts.append((np.array([self.vocab[piece.token]], dtype=np.int32), span))
            else:
                word = text[piece.start : piece.end]
                ids, offsets, _ = engine.encode(word, _NOTHING, _NOTHING, self._special_lookup)
                offsets += np.int32(piece.start)
                parts.append((ids, offsets))
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([offsets for _, offsets in parts])

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Encoding:
        """Tokenize one text exactly as the published tokenizer does; nothing is cut or changed to upper case."""
        compiled = self._engine_for(text)
        if compiled is None or not compiled[1].is_plain(text):
            return super().encode(text, add_special_tokens=add_special_tokens)
        prefix, suffix = self._ends if add_special_tokens else (_NOTHING, _NOTHING)
        ids, offsets, mask = compiled[0].encode(text, prefix, suffix, self._special_lookup)
        return Encoding(ids, offsets, len(text), mask)

    @cached_property
    def _ends(self) -> tuple[IntArray, IntArray]:
        return np.array(self.template.prefix, dtype=np.int32), np.array(self.template.suffix, dtype=np.int32)

    def _engine_for(self, text: str) -> tuple[BpeEngine, TextRules] | None:
        """Give the own engine, or None where the library encodes this text."""
        return None if self._engine_choice == "library" and self._is_simple(text) else self._engine

    def _is_simple(self, text: str) -> bool:
        """Say whether the library is sure to give our offsets: A, C, G, T, N, and no run of N that becomes one gap."""
        gap = _GAP if self._parsed.get("normalizer") is None or "N{10,}" in self.definition else "NN"
        return gap not in text and text.isascii() and not text.encode().translate(None, b"ACGTN")


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """Read a merge as either version of the file writes it: ``"A C"`` or ``["A", "C"]``."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2:
        raise Unsupported(f"its merge {merge!r} is not a pair")
    return parts[0], parts[1]


def _find_roles(vocab: dict[str, int], roles: Mapping[str, str], flagged: set[int], where: str) -> SpecialIds:
    ids: dict[str, int | None] = {}
    for role, usual in _ROLE_NAMES.items():
        name = roles.get(f"{role}_token")
        if name is not None and name not in vocab:
            raise TokenizerError(
                f"{where}: the {role} token '{name}' of tokenizer_config.json is not in the vocabulary."
            )
        ids[role] = vocab[name] if name is not None else next((vocab[text] for text in usual if text in vocab), None)
    named = {i for i in ids.values() if i is not None}
    return SpecialIds(**ids, extra=frozenset(flagged - named))


def _open_library(definition: str, where: str) -> Any:
    from tokenizers import Tokenizer as LibraryTokenizer

    try:
        return LibraryTokenizer.from_str(definition)
    except Exception as error:  # the library raises plain Exception
        raise TokenizerError(f"{where}: cannot be read by the tokenizers library ({error}).") from None


def _find_template(parsed: dict[str, Any], vocab: dict[str, int], source: tuple[str, str]) -> SpecialTokenTemplate:
    processor = parsed.get("post_processor")
    if processor is None:
        return SpecialTokenTemplate(pair_middle=())
    if processor.get("type") == "BertProcessing":
        start, end = (int(processor["cls"][1]),), (int(processor["sep"][1]),)
        return SpecialTokenTemplate(start, end, end, end)
    return _probe_template(vocab, source)


def _probe_template(vocab: dict[str, int], source: tuple[str, str]) -> SpecialTokenTemplate:
    """Find what the library adds by encoding one ordinary token alone and twice."""
    library = _open_library(*source)
    letter = next((text for text in ("A", "C", "a") if text in vocab), min(vocab, key=len))
    middle = vocab[letter]
    single, pair = library.encode(letter).ids, library.encode(letter, letter).ids
    at = single.index(middle)
    second = pair.index(middle, at + 1)
    return SpecialTokenTemplate(
        tuple(single[:at]), tuple(single[at + 1 :]), tuple(pair[at + 1 : second]), tuple(pair[second + 1 :])
    )
