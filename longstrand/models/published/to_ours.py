"""Published checkpoints to ours and back, tensor by tensor, with nothing left over.

Both directions apply one entry of `longstrand.models.published.families`. A round trip gives the published tensors bit
for bit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from longstrand.errors import CheckpointError, one_of
from longstrand.models.config import LongstrandConfig, read_published_with
from longstrand.models.published.families import FAMILIES, Family, made_layouts, recognise_family
from longstrand.models.published.rmt import COUNTERS, MEMORY, is_rmt, unwrap_rmt
from longstrand.models.tensors import LAYOUT, read_headers, read_tensors, weight_files
from longstrand.runtime import read_json, write_json

if TYPE_CHECKING:
    from longstrand.models.network import Network


@dataclass(frozen=True)
class Imported:
    """A published checkpoint under our names.

    Attributes:
        family: the entry that was applied.
        config: our configuration.
        tensors: by our names; what no rule knows keeps its published name and will be refused as unexpected.
        dropped: published names left out, with the reason.
        renamed: published name to our names of every tensor that a rule knows (several: a fused one was split).
        problems: copies that contradict each other.
    """

    family: Family
    config: LongstrandConfig
    tensors: dict[str, Tensor]
    dropped: dict[str, str]
    problems: list[str]
    renamed: dict[str, tuple[str, ...]] = field(default_factory=dict)


def import_published(
    folder: Path,
    *,
    quirks: tuple[str, ...] = (),
    family: str | None = None,
    tensors: dict[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> Imported:
    """Read a published checkpoint folder (config.json and weights).

    Args:
        folder: the folder.
        quirks: names of `longstrand.models.config.QUIRKS` to switch on, besides those of the family.
        family: name in `FAMILIES` that the files must belong to; None takes what they are.
        tensors: the weights by their published names, if they were read already; on the meta device (shapes only)
            copies are not compared.
        dtype: what floating-point tensors are converted to while they are read; None: as stored.

    Raises:
        CheckpointError: unreadable, of unknown or another architecture, or with settings that are not implemented.
    """
    folder = Path(folder)
    published = read_json(folder / "config.json")
    tensors = read_tensors(folder, dtype) if tensors is None else tensors
    memory, initial = {}, {}
    if is_rmt(tensors):
        keep_rows = "memory_in_vocabulary" in quirks
        published, tensors, memory["memory"], initial[MEMORY] = unwrap_rmt(published, tensors, keep_rows=keep_rows)
    entry = recognise_family(published, tensors, str(folder))
    if family is not None and not FAMILIES[one_of(family, FAMILIES, "family")].recognise(published, tensors):
        raise CheckpointError(f"{folder}: these are files of {entry.name}, not of {family}: {entry.differences}")
    entry = entry if family is None else FAMILIES[family]
    settings = entry.settings(published, tensors)
    names = [*settings.pop("quirks", []), *quirks]
    config = LongstrandConfig(**settings, **memory, family=entry.name, quirks=names)
    imported = import_tensors(entry, config, tensors)
    return replace(imported, tensors=imported.tensors | initial)


def is_published(folder: Path) -> bool:
    """Say whether a folder's config.json is that of another code than ours."""
    path = Path(folder) / "config.json"
    return path.is_file() and read_json(path).get("model_type") != LongstrandConfig.model_type


def import_headers(folder: Path) -> Imported:
    """Do as `import_published` with names and shapes alone: the tensors are on the meta device.

    Raises:
        CheckpointError: as `import_published`.
    """
    return import_published(folder, tensors=read_headers(weight_files(folder), wanted=COUNTERS))


read_published_with(lambda folder: import_headers(folder).config if is_published(folder) else None)


def import_tensors(family: Family, config: LongstrandConfig, tensors: dict[str, Tensor]) -> Imported:
    """Rename published tensors, check and remove second copies, leave out what the family drops."""
    tensors = {current_name(name): tensor for name, tensor in tensors.items()}
    tensors, problems = _merge_copies(_with_base_prefix(family, tensors), _copies(family, config))
    rules = _rules(family, config)
    determined = family.regenerate(config)
    renamed: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    places: dict[str, tuple[str, ...]] = {}
    for name, tensor in tensors.items():
        ours, parts = _rename(name, rules), _fused_parts(family, name)
        reason = next((reason for template, reason in family.dropped.items() if _match(template, name) is not None), "")
        if parts and tensor.shape[0] % len(parts):
            problems.append(f"mis-shaped: {name} is {tuple(tensor.shape)}, which is not {len(parts)} equal parts")
        elif parts:
            renamed |= dict(zip(parts, tensor.chunk(len(parts))))
            places[name] = tuple(parts)
        elif ours is None and reason:
            dropped[name] = reason
            problems += _contradiction(name, tensor, determined.get(name))
        else:
            is_layout = (ours or name).endswith(LAYOUT)
            renamed[ours or name] = tensor.to(torch.uint8) if is_layout else tensor
            places |= {name: (ours,)} if ours is not None else {}
    return Imported(family, config, renamed | made_layouts(config), dropped, problems, places)


def _contradiction(name: str, stored: Tensor, determined: Tensor | None) -> list[str]:
    """Compare stored inverse frequencies with what the configuration implies; loosely, as they may be bf16."""
    if determined is None or not determined.is_floating_point() or stored.is_meta:
        return []
    if stored.shape == determined.shape and torch.allclose(stored.float(), determined, rtol=1e-2, atol=1e-6):
        return []
    shapes = f"{tuple(stored.shape)}, config.json implies {tuple(determined.shape)}"
    return [f"contradicting: {name} is not what config.json implies (heads, rotary size or base); it is {shapes}"]


def export_published(model: Network, folder: Path, family: str | None = None) -> None:
    """Write a model as published files (config.json, model.safetensors) that the original code reads.

    Args:
        model: one of our models, usually with a head (the encoder alone is written without one).
        folder: created if absent; existing files of these names are replaced.
        family: name in `FAMILIES`; by default where the weights came from.

    Raises:
        CheckpointError: the family is unknown or its format cannot express the model.
    """
    entry, settings = published_settings(model.config, family)
    tensors = export_tensors(entry, model.config, model.state_dict())
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", settings)


def published_settings(config: LongstrandConfig, family: str | None = None) -> tuple[Family, dict[str, Any]]:
    """Give the family to export to, and its published config for a model of ours.

    Raises:
        CheckpointError: the family is unknown or its format cannot express the model.
    """
    entry = FAMILIES.get(family or config.family)
    if entry is None:
        known = ", ".join(FAMILIES)
        raise CheckpointError(f"family '{family or config.family}' has no published format; choose one of: {known}.")
    settings = entry.published(config)
    _refuse_lost_settings(entry, config, settings)
    return entry, settings


def export_tensors(family: Family, config: LongstrandConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a model's tensors under published names, second copies written out, dropped counters regenerated."""
    prefix = "" if config.heads else "encoder."
    own = {f"{prefix}{name}": tensor.detach() for name, tensor in tensors.items()}
    if config.tie_word_embeddings:
        own.pop("lm_head.decoder.weight", None)
    rules = [(mine, theirs) for theirs, mine in _rules(family, config)]
    made = made_layouts(config)
    result = _join_fused(family, own)
    for name, tensor in own.items():
        if name in made:
            continue
        theirs = _rename(name, rules)
        assert theirs is not None, f"{family.name} says it can express the model, but has no name for {name}"
        result[theirs] = (tensor.long() if name.endswith(LAYOUT) else tensor.clone()).contiguous()
    for copy, original in _copies(family, config):
        if original in result and config.kind == "masked_lm":
            result[copy] = result[original].clone()
    return result | family.regenerate(config)


def published_name(family: Family, name: str) -> str:
    """Translate one of our names for messages; unknown names come back as they are."""
    rules = [(mine, theirs) for keys in (family.keys, *family.head_keys.values()) for theirs, mine in keys.items()]
    return (
        _rename(name, [*rules, *((mine, theirs) for theirs, parts in family.fused.items() for mine in parts)]) or name
    )


def rename_weight(family: Family, name: str, head: str | None) -> list[str]:
    """Give our names of a published tensor of an encoder or a head of a kind; several if it is fused, none if unknown.

    The base prefix may be missing, as in files of a bare encoder.
    """
    rules = [*family.keys.items(), *family.head_keys.get(head or "", {}).items()]
    for full in (name, family.base + name):
        ours = _rename(full, rules)
        places = _fused_parts(family, full) or ([ours] if ours is not None else [])
        if places:
            return places
    return []


def _rules(family: Family, config: LongstrandConfig) -> list[tuple[str, str]]:
    """Collect the (published, ours) templates of a model with its heads."""
    of_heads = (family.head_keys.get(head.kind, {}).items() for head in config.heads.values())
    return [*family.keys.items(), *(pair for rules in of_heads for pair in rules)]


def _fused_parts(family: Family, name: str) -> list[str]:
    """List our names of the parts of a fused published tensor; none if it is not fused."""
    for template, parts in family.fused.items():
        found = _match(template, name)
        if found is not None:
            return [part.format(**found) for part in parts]
    return []


def _join_fused(family: Family, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the parts of fused tensors out of ``own`` and give the joined ones by their published names."""
    joined: dict[str, Tensor] = {}
    for template, parts in family.fused.items():
        for name in [name for name in own if _match(parts[0], name) is not None]:
            found = _match(parts[0], name) or {}
            joined[template.format(**found)] = torch.cat([own.pop(part.format(**found)) for part in parts])
    return joined


_NOT_COMPARED = {"heads", "family", "quirks", "initializer_range"}


def _refuse_lost_settings(family: Family, config: LongstrandConfig, published: dict[str, Any]) -> None:
    """Read a published config back and refuse the export if it says another thing than ours."""
    fields = family.settings(published, ())
    quirks = sorted(fields.get("quirks", []))
    again = LongstrandConfig(**{**fields, "family": config.family}).settings()
    own = config.settings()
    for settings in (own, again):
        settings["rotary"]["dims"] = settings["rotary"]["dims"] or config.hidden_size // config.num_attention_heads
        settings["lm_activation"] = settings["lm_activation"] or settings["activation"]
        if settings["attention"]["pattern"] in _EFFECTIVE:
            kept = _EFFECTIVE[settings["attention"]["pattern"]]
            settings["attention"] = {name: settings["attention"][name] for name in kept}
    lost = [name for name in own if name not in _NOT_COMPARED and again[name] != own[name] and _matters(name, own)]
    words = [f"{name} {own[name]!r} (it would become {again[name]!r})" for name in lost]
    if "quirks" in fields and quirks != sorted(own["quirks"]):
        words.append(f"quirks {own['quirks']} (they would become {quirks})")
    if words:
        raise CheckpointError(f"the published format of {family.name} cannot express {'; '.join(words)}.")


_EFFECTIVE = {"full": ("pattern",), "sliding": ("pattern", "window", "global_every")}
"""Fields of the attention that have an effect; those of block_sparse all may."""


def _matters(name: str, settings: dict[str, Any]) -> bool:
    """Say whether a field has any effect beside the others."""
    if name == "mask_token_id":
        return "token_dropout" in settings["quirks"]
    if name == "rotary":
        return settings["positions"] == "rotary"
    if name == "max_position_embeddings":
        return settings["positions"] == "learned"
    return True


def _copies(family: Family, config: LongstrandConfig) -> tuple[tuple[str, str], ...]:
    tied = config.tie_word_embeddings
    return tuple(pair for pair in family.copies.items() if tied or not pair[0].endswith("decoder.weight"))


def current_name(name: str) -> str:
    """Translate the old names of a norm's parameters, which transformers still writes for ESM, into weight and bias."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        name = name.removesuffix(old) + new if name.endswith(old) else name
    return name


def _with_base_prefix(family: Family, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the base prefix to files of a bare encoder, whose names lack it."""
    if any(name.startswith(family.base) for name in tensors):
        return tensors
    return {family.base + name: tensor for name, tensor in tensors.items()}


def _merge_copies(
    tensors: dict[str, Tensor], copies: tuple[tuple[str, str], ...]
) -> tuple[dict[str, Tensor], list[str]]:
    merged, problems = dict(tensors), []
    for copy, original in copies:
        if copy not in merged:
            continue
        second = merged.pop(copy)
        first = merged.setdefault(original, second)
        if first.shape != second.shape or not (first.is_meta or torch.equal(first, second)):
            problems.append(f"contradicting: {copy} should be a copy of {original}, but differs")
    return merged, problems


def _rename(name: str, rules: list[tuple[str, str]]) -> str | None:
    for source, target in rules:
        found = _match(source, name)
        if found is not None:
            return target.format(**found)
    return None


def _match(template: str, name: str) -> dict[str, Any] | None:
    pattern = re.escape(template).replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\{p\}", "(?P<p>weight|bias)")
    found = re.fullmatch(pattern, name)
    return None if found is None else found.groupdict()
