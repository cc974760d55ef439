"""Open a tokenizer folder: our own, GENA-LM's, DNABERT's, DNABERT-2's or a Nucleotide Transformer's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from longstrand.errors import CheckpointError, TokenizerError
from longstrand.runtime import TOKENIZER_FILES, model_folder
from longstrand.tokenization.base import Tokenizer
from longstrand.tokenization.bpe import BpeTokenizer, EngineChoice
from longstrand.tokenization.files import parse_definition, read_object, read_settings, without_upper_case
from longstrand.tokenization.kmer import kmer_from_vocab, read_vocab_file


def load_tokenizer(folder: Path | str, *, engine: EngineChoice = "own") -> Tokenizer:
    """Load the tokenizer of a model or of a folder (or one ``tokenizer.json`` or ``vocab.txt``); no foreign code runs.

    A ``tokenizer.json`` is BPE or one of our k-mer files; a ``vocab.txt`` is a k-mer vocabulary, overlapping
    (DNABERT) if it has no single letters, else non-overlapping (Nucleotide Transformer).

    Args:
        folder: where the files are: a file, or anything that `longstrand.runtime.model_folder` finds.
        engine: what encodes BPE, see `BpeTokenizer`; ``library`` starts at once and is meant for a few short texts.

    Raises:
        TokenizerError: the folder is missing, holds no tokenizer, or one that is damaged or of an unknown kind.
    """
    path, names = Path(folder).expanduser(), list(TOKENIZER_FILES)
    if path.is_file():
        path, names = path.parent, [path.name]
    else:
        try:
            path = model_folder(folder)
        except CheckpointError as error:
            raise TokenizerError(str(error)) from None
    for name in names:
        if not (path / name).is_file():
            continue
        try:
            return _load_json(path / name, engine) if name.endswith(".json") else _load_vocab(path / name)
        except (OSError, UnicodeDecodeError) as error:
            raise TokenizerError(f"{path / name}: cannot be read ({error}).") from None
    raise TokenizerError(f"{path}: no tokenizer here; expected tokenizer.json or vocab.txt.")


def _load_json(path: Path, engine: EngineChoice) -> Tokenizer:
    text = path.read_text(encoding="utf-8")
    parsed = parse_definition(text, str(path))
    if (plain := without_upper_case(parsed)) is not None:
        text = json.dumps(plain, ensure_ascii=False, indent=1)
    roles, max_tokens = read_settings(path.parent)
    if parsed["model"].get("type", "BPE") == "WordLevel":
        return _kmer(path, parsed["model"].get("vocab", {}), max_tokens)
    return BpeTokenizer(text, roles=roles, max_tokens=max_tokens, where=str(path), engine=engine)


def _load_vocab(path: Path) -> Tokenizer:
    _, max_tokens = read_settings(path.parent)
    return _kmer(path, read_vocab_file(path), max_tokens)


def _kmer(path: Path, vocab: dict[str, int], max_tokens: int | None) -> Tokenizer:
    described = read_object(path.parent / "longstrand.json").get("tokenizer", {})
    options: dict[str, Any] = {key: described[key] for key in ("unknown", "append_eos") if key in described}
    try:
        tokenizer = kmer_from_vocab(vocab, **options)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from None
    tokenizer.max_tokens = max_tokens
    return tokenizer
