"""Several models of one task as one: what they say on average, and how far they disagree.

Logits are averaged, as over the strands: the probabilities of a row are those of its mean logits, and an explanation of
the ensemble is the mean of its members' explanations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from longstrand.errors import CheckpointError, UsageError
from longstrand.models.attention.layouts import longest_input
from longstrand.models.config import LongstrandConfig
from longstrand.models.network import Network
from longstrand.models.reading import Reading

SHARED = ("strand", "window", "exact_text", "pair", "truncate", "directed", "class_names")
"""What members must read alike."""


@dataclass
class EnsembleOutput(ModelOutput):
    """What an ensemble says.

    Attributes:
        logits: mean over the members, as of one model.
        members: ``(k, ...)``, of each.
    """

    logits: Tensor | None = None
    members: Tensor | None = None


class Ensemble(Network):
    """Models with the same head, tokenizer and reading; the logits are the mean of theirs.

    It has no encoder of its own: states and embeddings are asked of a member. Its word vectors are those of all
    members, one behind the other.
    """

    def __init__(self, members: Sequence[Network]) -> None:
        super().__init__()
        if len(members) < 2:
            raise UsageError(f"an ensemble has at least two models, got {len(members)}.")
        first = members[0]
        if first.kind not in ("sequence", "token", "bin"):
            raise UsageError(f"an ensemble is of models with labels; {name_of(first)} is of the kind {first.kind}.")
        for other in members[1:]:
            if different := _differences(first, other):
                raise CheckpointError(
                    f"{name_of(first)} and {name_of(other)} are no ensemble: other {', '.join(different)}."
                )
        folders = [one.folder.resolve() for one in members if one.folder is not None]
        if len(set(folders)) < len(folders):
            raise UsageError(f"{name_of(first)}: one model is named twice; an ensemble is of different ones.")
        self.members = nn.ModuleList(members)
        configs = [one.config for one in members]
        self.config = min(configs, key=lambda c: (isinstance(c, LongstrandConfig) and longest_input(c)) or float("inf"))
        self.kind, self.head_settings = first.kind, first.head_settings  # type: ignore[misc]
        self.tokenizer, self.tokenizer_fingerprint = first.require_tokenizer(), first.tokenizer_fingerprint
        self.reading = _reading(members)
        self.embeddings = _Embeddings(members)
        self.eval()

    def forward(
        self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, **inputs: Any
    ) -> EnsembleOutput:
        """Ask every member; ``inputs_embeds`` (B, L, sum of hidden sizes) as of ``embeddings.word_embeddings``."""
        sizes = [table.weight.shape[1] for table in self.embeddings.word_embeddings.tables]
        parts = [None] * len(sizes) if inputs_embeds is None else inputs_embeds.split(sizes, -1)
        found = [
            member(input_ids=input_ids, inputs_embeds=part, **inputs).logits
            for member, part in zip(self.members, parts)
        ]
        members = torch.stack(found)
        return EnsembleOutput(logits=members.mean(0), members=members)


class _Words(nn.Module):
    """The word vectors of all members, one behind the other; no weights of its own."""

    def __init__(self, tables: Sequence[nn.Embedding]) -> None:
        super().__init__()
        self.tables = tables if isinstance(tables, tuple) else tuple(tables)  # a tuple, so that nothing is stored twice

    @property
    def weight(self) -> Tensor:
        size = min(len(table.weight) for table in self.tables)
        return torch.cat([table.weight[:size] for table in self.tables], -1)

    def forward(self, input_ids: Tensor) -> Tensor:
        return torch.cat([table(input_ids) for table in self.tables], -1)


class _Embeddings(nn.Module):
    def __init__(self, members: Sequence[Any]) -> None:
        super().__init__()
        self.word_embeddings = _Words(tuple(one.encoder.embeddings.word_embeddings for one in members))


def name_of(model: Network) -> str:
    """Give the folder of a model, or of each model of an ensemble, for people."""
    if isinstance(model, Ensemble):
        return ", ".join(map(name_of, model.members))  # type: ignore[arg-type]
    return str(model.folder or type(model).__name__)


def temperature_notes(model: Network) -> list[str]:
    """Say that an ensemble is not calibrated although its members are; for who uses probabilities and gives none."""
    if not isinstance(model, Ensemble) or (model.reading or Reading()).temperature is not None:
        return []
    if all((one.reading or Reading()).temperature is None for one in model.members):  # type: ignore[union-attr]
        return []
    return [
        "note: the temperatures of single models are not that of their ensemble, so none is used; longstrand calibrate "
        "finds it for the ensemble, and predict takes it as --temperature."
    ]


def _differences(one: Network, other: Network) -> list[str]:
    """Name what keeps two models from being one."""
    known, heads = (one.reading or Reading(), other.reading or Reading()), (one.head_settings, other.head_settings)
    parts = {
        "kind of head": (one.kind, other.kind),
        **{name: tuple(getattr(head, name, None) for head in heads)
           for name in ("problem", "num_outputs", "class_names", "bin_bases")},
        **{name: tuple(getattr(each, name) for each in known) for name in SHARED},
        "tokenizer": tuple(each.require_tokenizer().fingerprint for each in (one, other)),
        "kind of memory": tuple(getattr(each.config, "memory", None) is None for each in (one, other)),
    }  # fmt: skip
    return [name for name, (left, right) in parts.items() if left != right]


def _reading(members: Sequence[Network]) -> Reading | None:
    """Join the reading records: the shortest input; no temperature, which belongs to a single model."""
    known = [one.reading for one in members if one.reading is not None]
    if not known:
        return None
    shortest = {name: min((value for each in known if (value := getattr(each, name)) is not None), default=None)
                for name in ("max_tokens", "longest_bases")}  # fmt: skip
    return known[0].model_copy(update={**shortest, "temperature": None})
