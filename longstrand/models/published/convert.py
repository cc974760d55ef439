"""Checkpoint folders of published families to ours and back, whole: weights, config, tokenizer, and what is left over.

Our folder remembers the published one: the text of its config, the name and type of every tensor, and the tensors that
nothing of ours uses (`PUBLISHED_REST`). So a round trip gives the published files back bit for bit. Weights keep their
type; they are never rounded.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from longstrand.errors import CheckpointError, LongstrandError, UsageError, one_of
from longstrand.models.checkpoint import check_tokenizer, write_record
from longstrand.models.config import QUIRKS, LongstrandConfig
from longstrand.models.pretrained import MODELS
from longstrand.models.published.families import FAMILIES, Family, made_layouts
from longstrand.models.published.to_ours import (
    current_name,
    export_tensors,
    import_published,
    published_name,
    published_settings,
)
from longstrand.models.reading import KEY as READING
from longstrand.models.reading import read_reading
from longstrand.models.strict_load import check_weights
from longstrand.models.tensors import INDEX, RECORD, WEIGHTS, read_record, read_tensors
from longstrand.runtime import (
    check_output,
    model_folder,
    provenance,
    read_json,
    replacing_folder,
    write_atomically,
    write_json,
)

PUBLISHED_REST = "published_rest.safetensors"
"""Tensors of a published checkpoint that nothing of ours uses, kept for the way back."""
FORMATS = ("published", "longstrand")
_TEXTS = (".json", ".txt", ".md", ".model")
_OWN = ("config.json", INDEX, RECORD)


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        source: folder that was read.
        output: folder that was written.
        target: ``published`` or ``longstrand``.
        family: name in `FAMILIES`.
        differences: how the family differs from BERT and from its own paper.
        quirks: name of each quirk that is on, and what it does.
        num_tensors: tensors written.
        renamed: name in the source to names in the output.
        dropped: published tensors that our model does not use, with the reason; they are kept aside.
        added: tensors that the output has and the source lacks, with the reason.
        carried: files that were copied unchanged.
        left: files that were not copied, with the reason.
        notes: what else a user should know.
    """

    source: str
    output: str
    target: str
    family: str
    differences: str
    quirks: dict[str, str]
    num_tensors: int = 0
    renamed: dict[str, list[str]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    carried: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as a plain dictionary."""
        return asdict(self)


def convert_folder(
    source: str | Path, output: str | Path, *, target: str, family: str | None = None, force: bool = False
) -> Conversion:
    """Convert a checkpoint folder; the output appears whole or not at all.

    Args:
        source: folder (or hub id) of a published checkpoint, or of ours.
        output: folder to write.
        target: ``longstrand`` or ``published``.
        family: to ``longstrand``: what the source must be; to ``published``: the format, by default the one that the
            weights came from.
        force: replace an output that is a checkpoint already.

    Raises:
        UsageError: unknown target or family, the source has the target's format already, or the output exists.
        CheckpointError: the source is damaged or not accounted for, or the format cannot express the model.
        TokenizerError: the tokenizer in the source belongs to another model.
    """
    one_of(target, FORMATS, "format")
    if family is not None:
        one_of(family, FAMILIES, "family")
    folder, output = model_folder(source), Path(output).expanduser()
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: no config.json here; this is not a checkpoint folder.")
    is_ours = read_json(folder / "config.json").get("model_type") == LongstrandConfig.model_type
    if is_ours == (target == "longstrand"):
        other = "published" if is_ours else "longstrand"
        raise UsageError(f"{folder}: is in {target} format already; nothing to convert (use --to {other}).")
    _check_output(folder, output, force)
    try:
        entry, config, done = (_to_published if is_ours else _to_longstrand)(folder, output, family)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{output}: cannot be written ({reason}); what was there before is intact.") from error
    quirks = {name: QUIRKS[name] for name in config.quirks}
    return Conversion(str(folder), str(output), target, entry.name, entry.differences, quirks, **done)


_Done = tuple[Family, LongstrandConfig, dict[str, Any]]
"""The family, our configuration, and the other fields of `Conversion`."""


def _check_output(source: Path, output: Path, force: bool) -> None:
    check_output(output, [source])
    if output.is_file():
        raise UsageError(f"{output}: is a file; name a folder.")
    if not output.exists() or not any(output.iterdir()):
        return
    if not force:
        raise UsageError(f"{output}: exists already; choose another folder, or pass --force to replace it.")
    if not (output / "config.json").is_file():
        raise UsageError(f"{output}: holds other things than a checkpoint and is not replaced, not even with --force.")


def _to_longstrand(folder: Path, output: Path, family: str | None) -> _Done:
    published = read_tensors(folder)
    imported = import_published(folder, family=family, tensors=published)
    entry = imported.family
    kind = imported.config.kind
    checked = check_weights(
        imported.config, imported.tensors, kind, where=str(folder), problems=imported.problems,
        rename=partial(published_name, entry),
    )  # fmt: skip
    config = checked.config
    config.architectures = [MODELS[kind].__name__]
    widths = Counter(tensor.dtype for tensor in checked.tensors.values() if tensor.is_floating_point())
    config.dtype = widths.most_common(1)[0][0] if widths else None
    rest = _rest(entry, config, published, imported.dropped)
    with replacing_folder(output) as new:
        carried, left = _carry(folder, new)
        tokenizer, notes = _tokenizer(new, config)
        config.save_pretrained(new)
        tensors = {name: tensor.contiguous() for name, tensor in checked.tensors.items()}
        save_file(tensors, new / WEIGHTS, metadata={"format": "pt"})
        if rest:
            save_file(rest, new / PUBLISHED_REST)
        write_json(new / RECORD, {"published": _memory(folder, entry, published)})
        write_record(new, tokenizer, provenance(), None, read_reading(folder))
    if len(widths) == 1 and config.dtype != torch.float32:
        notes.append(f"weights stay {str(config.dtype).removeprefix('torch.')}, as published.")
    made = made_layouts(config)
    why = "published files lack it; made from the configuration"
    return entry, config, {
        "num_tensors": len(checked.tensors),
        "renamed": {name: list(ours) for name, ours in imported.renamed.items()},
        "dropped": imported.dropped,
        "added": {name: why for name in checked.tensors if _full(name) in made},
        "carried": carried,
        "left": left,
        "notes": notes,
    }  # fmt: skip


def _rest(
    entry: Family, config: LongstrandConfig, published: Mapping[str, Tensor], dropped: Mapping[str, str]
) -> dict[str, Tensor]:
    """Collect the dropped tensors, by the names of the file, that an export would not make again bit for bit."""
    again, prefix = entry.regenerate(config), entry.base
    rest = {}
    for name, tensor in published.items():
        full = name if name in dropped else prefix + name
        if full not in dropped:
            continue
        same = again.get(full)
        if same is None or same.dtype != tensor.dtype or same.shape != tensor.shape or not torch.equal(same, tensor):
            rest[name] = tensor.contiguous()
    return rest


def _memory(folder: Path, entry: Family, published: Mapping[str, Tensor]) -> dict[str, Any]:
    """Describe the published files as far as the way back needs it."""
    metadata: dict[str, str] | None = {"format": "pt"}
    if (folder / WEIGHTS).is_file():
        with safe_open(folder / WEIGHTS, framework="pt") as reader:
            metadata = reader.metadata()
    return {
        "family": entry.name,
        "config": (folder / "config.json").read_text(encoding="utf-8"),
        "tensors": {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in published.items()},
        "metadata": metadata,
    }


def _to_published(folder: Path, output: Path, family: str | None) -> _Done:
    config = LongstrandConfig.from_dict(read_json(folder / "config.json"))
    entry, settings = published_settings(config, family)
    kind = config.kind
    checked = check_weights(config, read_tensors(folder), kind, where=str(folder))
    made = export_tensors(entry, checked.config, checked.tensors)
    record = read_record(folder)
    memory = record.get("published", {})
    memory = memory if memory.get("family") == entry.name else {}
    rest = load_file(folder / PUBLISHED_REST) if (folder / PUBLISHED_REST).is_file() and memory else {}
    tensors, notes = _as_published(entry, config, made, rest, memory)
    text, changed = _config_text(entry, config, settings, memory)
    if changed:
        notes.append(f"config keys that are not as in the published file: {', '.join(changed)}.")
    if not memory:
        notes.append("the folder does not remember published files, so the config holds the keys that matter only.")
    with replacing_folder(output) as new:
        carried, left = _carry(folder, new)
        write_atomically(new / "config.json", text)
        save_file(tensors, new / WEIGHTS, metadata=memory.get("metadata", {"format": "pt"}))
        if READING in record:
            write_json(new / RECORD, {READING: record[READING]})
    return entry, config, {
        "num_tensors": len(tensors),
        "renamed": {name: [published_name(entry, _full(name))] for name in checked.tensors},
        "added": _added_back(entry, config, tensors, rest),
        "carried": carried,
        "left": left,
        "notes": notes,
    }  # fmt: skip


def _full(name: str) -> str:
    """Give the name that a tensor has in a model with a head."""
    return name if name.startswith(("lm_head.", "classifier.", "encoder.")) else f"encoder.{name}"


def _added_back(
    entry: Family, config: LongstrandConfig, tensors: Mapping[str, Tensor], rest: Mapping[str, Tensor]
) -> dict[str, str]:
    """Say where tensors come from that our model does not have."""
    again, copies = entry.regenerate(config), entry.copies
    added = {name: "kept aside since the import" for name in tensors if name in rest}
    added |= {name: "made from the configuration" for name in tensors if name in again and name not in rest}
    return added | {name: f"a copy of {copies[name]}" for name in tensors if name in copies and copies[name] in tensors}


def _as_published(
    entry: Family,
    config: LongstrandConfig,
    made: dict[str, Tensor],
    rest: Mapping[str, Tensor],
    memory: Mapping[str, Any],
) -> tuple[dict[str, Tensor], list[str]]:
    """Give exactly the tensors that the published files had, in their types, as far as they are remembered."""
    if not memory:
        return made, []
    made, prefix, result, notes = dict(made), entry.base, {}, list[str]()
    for name, dtype in memory["tensors"].items():
        found = rest.get(name)
        if found is None:
            current = current_name(name)
            found = made.pop(current, made.pop(prefix + current, None))
        if found is None:
            notes.append(f"the published file had {name}, which this model does not have any more.")
            continue
        cast = found.to(getattr(torch, dtype))
        result[name] = cast.contiguous() if torch.equal(cast.to(found.dtype), found) else found
    optional = {*entry.regenerate(config), *entry.copies}
    result |= {name: tensor for name, tensor in made.items() if name not in optional}
    return result, notes


def _config_text(
    entry: Family, config: LongstrandConfig, settings: Mapping[str, Any], memory: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """Give the text of the published config: unchanged if it still says what the model is, and the changed keys."""
    if not memory:
        return json.dumps(settings, indent=2) + "\n", []
    published = json.loads(memory["config"])
    again = LongstrandConfig(**{**entry.settings(published, memory["tensors"]), "family": entry.name}).settings()
    own = config.settings()
    if all(again[name] == own[name] for name in own if name != "family"):
        return memory["config"], []
    changed = {key: value for key, value in settings.items() if published.get(key, value) != value}
    new = {key: value for key, value in settings.items() if key not in published}
    return json.dumps({**published, **new, **changed}, indent=2) + "\n", sorted({*changed, *new})


def _carry(source: Path, new: Path) -> tuple[list[str], dict[str, str]]:
    """Copy the tokenizer's files, licence and notes byte for byte; name what stays behind, and why."""
    carried, left = [], {}
    for path in sorted(source.iterdir()):
        name = path.name
        if name in _OWN or name.endswith((".safetensors", ".bin")):
            continue
        if path.is_dir():
            left[name] = "a folder"
        elif path.suffix == ".py":
            left[name] = "code is neither run nor carried over"
        elif path.suffix in _TEXTS or name.upper().startswith(("LICENSE", "LICENCE", "NOTICE")):
            shutil.copyfile(path, new / name)
            carried.append(name)
        else:
            left[name] = "not part of a checkpoint that we know"
    return carried, left


def _tokenizer(folder: Path, config: LongstrandConfig) -> tuple[Any, list[str]]:
    """Open the carried tokenizer and check that it belongs to the model.

    Raises:
        TokenizerError: its vocabulary does not fit the model.
    """
    from longstrand.tokenization.hub import load_tokenizer

    check_tokenizer(folder, config.vocab_size, {})
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        return None, ["the source has no tokenizer; put its files beside the weights before using the model."]
    try:
        return load_tokenizer(folder, engine="library"), []
    except LongstrandError as error:
        return None, [f"the tokenizer was carried over but cannot be opened: {error}"]
