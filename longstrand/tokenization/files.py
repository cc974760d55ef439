"""Files of a tokenizer folder: ``tokenizer.json``, ``tokenizer_config.json``, our section of ``longstrand.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longstrand.errors import InputError, TokenizerError
from longstrand.runtime import read_json, write_atomically, write_json

ROLES = ("pad", "cls", "sep", "mask", "unk")
_NO_LIMIT = 10**9


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object; a missing file is an empty object.

    Raises:
        TokenizerError: it is not readable, or holds something else.
    """
    if not path.exists():
        return {}
    try:
        value = read_json(path)
    except (InputError, OSError) as error:
        raise TokenizerError(str(error)) from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{path}: an object is expected, found a {type(value).__name__}.")
    return value


def read_settings(folder: Path) -> tuple[dict[str, str], int | None]:
    """Read the named special tokens and the longest allowed input from the configuration files of a folder."""
    settings = read_object(folder / "special_tokens_map.json") | read_object(folder / "tokenizer_config.json")
    roles: dict[str, str] = {}
    for role in (f"{name}_token" for name in ROLES):
        value = settings.get(role)
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            roles[role] = content
    limit = settings.get("model_max_length")
    return roles, int(limit) if isinstance(limit, int | float) and limit < _NO_LIMIT else None


def write_tokenizer_files(
    folder: Path,
    definition: str,
    roles: Mapping[str, str],
    *,
    options: Mapping[str, Any],
    max_tokens: int | None,
    upper_case: str,
) -> None:
    """Write a folder for `load_tokenizer` and ``AutoTokenizer``; other sections of ``longstrand.json`` stay.

    Args:
        folder: created if absent.
        definition: the text of ``tokenizer.json``.
        roles: names of the special tokens.
        options: our section of ``longstrand.json``.
        max_tokens: longest input, or None.
        upper_case: letters whose lower case the file turns into upper case first, as our commands do before they
            tokenize. Our own tokenizers leave these steps out (`without_upper_case`), so ids and fingerprint stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "tokenizer.json", _with_upper_case(definition, upper_case))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings |= dict(roles) | ({"model_max_length": max_tokens} if max_tokens is not None else {})
    write_json(folder / "tokenizer_config.json", settings)
    described = read_object(folder / "longstrand.json")
    write_json(folder / "longstrand.json", described | {"tokenizer": dict(options)})


def _with_upper_case(definition: str, letters: str) -> str:
    if not letters:
        return definition
    parsed = json.loads(definition)
    steps = [{"type": "Replace", "pattern": {"String": letter.lower()}, "content": letter} for letter in letters]
    steps += _normalizers(parsed)
    return json.dumps(parsed | {"normalizer": {"type": "Sequence", "normalizers": steps}}, ensure_ascii=False, indent=1)


def without_upper_case(parsed: dict[str, Any]) -> dict[str, Any] | None:
    """Take out the steps that `write_tokenizer_files` put in front; None if there are none."""
    steps = _normalizers(parsed)
    kept = [step for step in steps if not _is_upper_case(step)]
    if kept == steps:
        return None
    whole = kept[0] if len(kept) == 1 and kept[0].get("type") == "Sequence" else None
    return parsed | {"normalizer": whole or ({"type": "Sequence", "normalizers": kept} if kept else None)}


def _normalizers(parsed: dict[str, Any]) -> list[dict[str, Any]]:
    """List the steps before the splitting; one that was there already is a step, a sequence or not."""
    normalizer = parsed.get("normalizer")
    if normalizer is None:
        return []
    steps = normalizer.get("normalizers") if normalizer.get("type") == "Sequence" else None
    return list(steps) if steps and any(map(_is_upper_case, steps)) else [normalizer]


def _is_upper_case(step: dict[str, Any]) -> bool:
    letter = (step.get("pattern") or {}).get("String", "") if step.get("type") == "Replace" else ""
    return len(letter) == 1 and letter.islower() and step.get("content") == letter.upper()


def parse_definition(text: str, where: str) -> dict[str, Any]:
    """Parse the text of a ``tokenizer.json``.

    Raises:
        TokenizerError: it is not JSON or has no model.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise TokenizerError(f"{where}: not readable as JSON ({error}).") from None
    if not isinstance(value, dict) or not isinstance(value.get("model"), dict):
        raise TokenizerError(f"{where}: not a tokenizer definition; it has no model.")
    return value
