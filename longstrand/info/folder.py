"""Say what a folder is: model, tokenizer or run, from its small files and the header of its weights.

No weights are read, so this is quick for a model of any size.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longstrand.errors import CheckpointError, InputError, LongstrandError, TokenizerError
from longstrand.genome.sequence import normalise
from longstrand.models.config import QUIRKS
from longstrand.models.published.rmt import COUNTERS
from longstrand.models.published.to_ours import import_published
from longstrand.models.tensors import LAYOUT, dtype_name, read_headers, weight_files
from longstrand.runtime import TOKENIZER_FILES, model_folder, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from longstrand.tokenization.base import Tokenizer

SAMPLE_BASES = 50_000
"""Bases of a genome on which bases per token are measured."""


_TITLES = tomllib.loads(Path(__file__).with_name("folder.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class FolderInfo:
    """What a folder holds.

    Attributes:
        path: the folder.
        kind: ``model``, ``tokenizer`` or ``run``.
        facts: title of a part to its facts, in reading order; values are words, numbers, or None if unknown.
    """

    path: Path
    kind: str
    facts: dict[str, dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Give everything as a plain dictionary."""
        return {"path": str(self.path), "kind": self.kind, **self.facts}


def inspect_folder(path: Path, fasta: Path | None = None) -> FolderInfo:
    """Recognise a folder by the files in it.

    Args:
        path: the folder, or anything that `longstrand.runtime.model_folder` finds.
        fasta: genome on which bases per token are measured; None: what was written down in training.

    Raises:
        InputError: nothing in the folder is known.
        CheckpointError: there is no such folder, or the weights' header is damaged.
    """
    path = Path(path).expanduser()
    path = path if path.exists() else model_folder(path)
    if path.is_file():
        raise InputError(f"{path}: is a file; give the folder of a model, a tokenizer or a run.")
    if (path / "config.yaml").exists():
        return FolderInfo(path, "run", _run_facts(path, fasta))
    if (path / "config.json").exists():
        return FolderInfo(path, "model", _model_facts(path, fasta))
    if any((path / name).exists() for name in TOKENIZER_FILES):
        return FolderInfo(path, "tokenizer", {"tokenizer": tokenizer_facts(path, fasta)})
    inner = sorted(child.name for child in path.iterdir() if child.is_dir() and _is_known(child))
    hint = f"; look at {', '.join(inner[:6])} inside it" if inner else ""
    raise InputError(
        f"{path}: neither a model (config.json) nor a tokenizer (tokenizer.json) nor a run (config.yaml){hint}."
    )


def _is_known(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("config.yaml", "config.json", *TOKENIZER_FILES))


def _model_facts(folder: Path, fasta: Path | None = None) -> dict[str, dict[str, Any]]:
    config = read_json(folder / "config.json")
    tensors, absent = _headers(folder)
    weights = {"parameters": None, "weights": absent} if absent else _weights(tensors)
    facts: dict[str, dict[str, Any]] = {"model": _architecture(config) | weights}
    if config.get("model_type") == "longstrand":
        parts = _parts({name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()})
        quirks = {name: QUIRKS.get(name, "unknown here") for name in config.get("quirks") or ()}
    else:
        config, parts, quirks = _published(folder, config, facts["model"], tensors)
    facts |= ({"parameters by part": parts} if parts else {}) | ({"quirks": quirks} if quirks else {})
    if any((folder / name).exists() for name in TOKENIZER_FILES):
        facts["tokenizer"] = tokenizer_facts(folder, fasta)
    facts["context"] = _context(config, facts.get("tokenizer", {}))
    heads = {
        name: ", ".join(
            str(head[key]) + (" outputs" if key == "num_outputs" else "")
            for key in ("kind", "problem", "pooling", "num_outputs")
            if head.get(key)
        )
        for name, head in (config.get("heads") or {}).items()
    }
    return facts | ({"heads": heads} if heads else {}) | _origin(_record(folder))


def _record(folder: Path) -> dict[str, Any]:
    file = folder / "longstrand.json"
    return dict(read_json(file)) if file.exists() else {}


def _architecture(config: dict[str, Any]) -> dict[str, Any]:
    kind = config.get("model_type", "unknown")
    return {
        "family": config.get("family") or kind,
        "format": "Longstrand" if kind == "longstrand" else f"Hugging Face '{kind}'",
        "layers": config.get("num_hidden_layers"),
        "hidden size": config.get("hidden_size"),
        "attention heads": config.get("num_attention_heads"),
        "vocabulary": config.get("vocab_size"),
        "positions": config.get("positions") or config.get("position_embedding_type"),
    }


def _weights(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    size = sum(tensor.numel() * tensor.itemsize for tensor in tensors.values())
    types = ", ".join(sorted({dtype_name(tensor.dtype) for tensor in tensors.values()}))
    count = sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point())
    return {"parameters": count, "weights": f"{len(tensors)} tensors, {types}, {size / 1e6:,.1f} MB"}


def _headers(folder: Path) -> tuple[dict[str, Tensor], str]:
    """Give the tensors of a folder without their numbers; else why there are none."""
    try:
        files = weight_files(folder, adapters=True)
    except CheckpointError as error:
        return {}, str(error) if any(folder.glob("*.index.json")) else "none in this folder"
    if files[0].suffix == ".bin":
        return {}, f"{files[0].name} (pickle, not opened)"
    return read_headers(files, wanted=COUNTERS), ""


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Count parameters of one of our models by part, from the names and sizes of its tensors."""
    parts: dict[str, int] = {}
    for name, tensor in tensors.items():
        part = next((part for mark, part in _TITLES["parts"].items() if mark in name), "other")
        if not name.endswith(LAYOUT):
            parts[part] = parts.get(part, 0) + tensor.numel()
    return parts


def _published(
    folder: Path, config: dict[str, Any], model: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, int], dict[str, str]]:
    """Recognise a published model: its config in our fields, parameters by part, quirks; ``model`` gets the rest.

    A folder that cannot be recognised keeps its own config; the reason goes into ``model``.
    """
    if not tensors:
        return config, {}, {}
    try:
        imported = import_published(folder, tensors=tensors)
    except LongstrandError as error:
        model["not usable"] = str(error)
        return config, {}, {}
    parts = _parts(imported.tensors)
    found = imported.config
    model |= {"family": imported.family.name, "positions": found.positions, "parameters": sum(parts.values())}
    model["differences"] = imported.family.differences
    reasons = {reason: name for name, reason in reversed(imported.dropped.items())}
    model["left out"] = "; ".join(f"{name} ... ({reason})" for reason, name in reasons.items()) or None
    return found.settings(), parts, {name: QUIRKS[name] for name in found.quirks}


def _context(config: dict[str, Any], tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Describe how much DNA the model sees at once; positions that are computed set no limit."""
    limit = config.get("max_position_embeddings")
    positions = config.get("positions") or config.get("position_embedding_type")
    learned = positions in (None, "learned", "absolute")
    memory = config.get("memory")
    if memory:
        words = f"{memory['num_tokens']} memory tokens, {memory['direction']}"
        return {"tokens": "any number", "limit": f"none: segments of {memory['segment_length']} tokens, {words}"}
    facts: dict[str, Any] = {"tokens": limit, "limit": "position table" if learned else "none set by the positions"}
    ratio = tokenizer.get("bases per token")
    if limit and ratio:
        facts["bases"] = f"about {round(limit * ratio):,} ({ratio:.2f} bases per token, {tokenizer['measured on']})"
    return facts


def _origin(about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pick the metrics, the seen data and the command out of ``longstrand.json``."""
    found: dict[str, dict[str, Any]] = {}
    for key, title in _TITLES["metrics"].items():
        places = [about, about.get("metrics"), about.get("provenance")]
        part = next(
            (place[key] for place in places if isinstance(place, dict) and isinstance(place.get(key), dict)), {}
        )
        numbers = {name: _number(value) for name, value in part.get("metrics", part).items()}
        found |= {title: {name: value for name, value in numbers.items() if value is not None}} if numbers else {}
    if not found and isinstance(metrics := about.get("metrics"), dict):
        found["metrics"] = {name: _number(value) for name, value in metrics.items() if _number(value) is not None}
    seen = {title: _find(about, key) for title, key in _TITLES["seen"].items()}
    if isinstance(seen["command"], list):
        seen["command"] = " ".join(map(str, seen["command"]))
    kept = {name: value for name, value in seen.items() if isinstance(value, str | int | float)}
    return found | ({"origin": kept} if kept else {})


def _number(value: Any) -> float | int | str | None:
    if isinstance(value, dict) and "value" in value:
        low, high = value.get("low"), value.get("high")
        interval = f" (95 % interval {low:.4f} to {high:.4f})" if low is not None and high is not None else ""
        return f"{value['value']:.4f}{interval}" if value["value"] is not None else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _find(value: Any, key: str) -> Any:
    """Find a key in nested dictionaries, the outermost first."""
    level = [value] if isinstance(value, dict) else []
    while level:
        for mapping in level:
            if mapping.get(key) is not None:
                return mapping[key]
        level = [inner for mapping in level for inner in mapping.values() if isinstance(inner, dict)]
    return None


def tokenizer_facts(folder: Path, fasta: Path | None = None) -> dict[str, Any]:
    """Describe the tokenizer of a folder.

    ``bases per token`` is measured on a genome (``fasta``), else taken from the folder's record of training. A
    tokenizer that cannot be opened has a ``problem`` instead.
    """
    from longstrand.tokenization.hub import load_tokenizer

    try:
        tokenizer = load_tokenizer(folder, engine="library")
    except TokenizerError as error:
        return {"bases per token": None, "problem": str(error)}
    words = [tokenizer.token_strings[i] for i in tokenizer.dna_token_ids]
    longest = max(words, key=len, default="")
    kind = "byte-pair encoding (BPE)"
    if tokenizer.kind == "kmer":
        kind = f"k-mers of {len(longest)}, {'overlapping' if tokenizer.overlapping else 'side by side'}"
    return {
        "kind": kind,
        "vocabulary": len(tokenizer.vocab),
        "special tokens": " ".join(tokenizer.token_strings[i] for i in sorted(tokenizer.special_ids)) or None,
        "longest token": f"{len(longest)} bases: {longest[:40]}{'...' if len(longest) > 40 else ''}"
        if longest
        else None,
        **(bases_per_token(folder, tokenizer) if fasta is None else measure_bases_per_token(tokenizer, fasta)),
        "fingerprint": tokenizer.fingerprint,
    }


def bases_per_token(folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return how many bases a token stands for, and how it is known: from training, or from the length of k-mers."""
    if (stored := _find(_record(folder), "bases_per_token")) is not None:
        return {"bases per token": float(stored), "measured on": "measured on the training genome"}
    if tokenizer.kind == "kmer":
        longest = int(tokenizer.bases_per_id.max())
        return {
            "bases per token": 1.0 if tokenizer.overlapping else float(longest),
            "measured on": "by the words' length",
        }
    return {"bases per token": None, "measured on": "not measured; pass --fasta GENOME"}


def measure_bases_per_token(tokenizer: Tokenizer, fasta: Path) -> dict[str, Any]:
    """Tokenize the first bases of a genome, N left out, special tokens not counted.

    Raises:
        InputError: the file cannot be read, or the tokenizer finds no token in it.
    """
    from longstrand.genome.fasta import Genome
    from longstrand.tokenization.report import inspect_tokenizer

    genome, pieces, left = Genome(fasta), list[str](), SAMPLE_BASES
    for chrom, length in genome.contigs.items():
        for start in range(0, length if left > 0 else 0, SAMPLE_BASES):
            text = normalise(genome.fetch(chrom, start, min(length, start + SAMPLE_BASES))).sequence
            for piece in filter(None, text.split("N")):
                pieces.append(piece[: max(0, left)])
                left -= len(pieces[-1])
            if left <= 0:
                break
    try:
        report = inspect_tokenizer(tokenizer, filter(None, pieces))
    except InputError as error:
        raise InputError(f"{fasta}: {error}") from None
    return {"bases per token": report.bases_per_token, "measured on": f"measured on {fasta}"}


def _run_facts(folder: Path, fasta: Path | None = None) -> dict[str, dict[str, Any]]:
    report = read_json(folder / "report.json") if (folder / "report.json").exists() else None
    last = _last_row(folder / "metrics.jsonl")
    checkpoints = sorted(int(f.name[11:]) for f in folder.glob("checkpoint-*") if f.name[11:].isdigit())
    kind = report.get("kind") if report else None
    run = {
        "state": "finished" if report is not None else "unfinished; the command that made it goes on from here",
        "kind": kind,
        "last step": last.get("step"),
        "checkpoints": ", ".join(map(str, checkpoints)) or None,
    }
    facts = {"run": {name: value for name, value in run.items() if value is not None}}
    if report is not None:
        facts |= _origin(report)
    elif last:
        facts["last row of metrics.jsonl (training and validation)"] = {
            name: value for name, value in last.items() if isinstance(value, int | float)
        }
    if (folder / "model" / "config.json").exists():
        for title, part in _model_facts(folder / "model", fasta).items():
            facts.setdefault(title, part)
    return facts


def _last_row(file: Path) -> dict[str, Any]:
    """Read the last complete row of a metrics file."""
    for line in reversed(file.read_text().splitlines() if file.exists() else []):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        return row if isinstance(row, dict) else {}
    return {}
