"""What an entry of the family table is, and what several entries share.

Templates: ``{n}`` is a layer number, ``{p}`` is weight or bias.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from longstrand.errors import CheckpointError
from longstrand.models.config import LongstrandConfig

logger = logging.getLogger(__name__)

Published = dict[str, Any]
Keys = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Family:
    """One published family.

    Attributes:
        name: what ``config.family`` says after an import.
        differences: how it differs from BERT and from its own paper, and why.
        recognise: whether a published config and tensor names belong here.
        settings: published config and tensor names -> our configuration fields (``quirks`` among them).
        published: our configuration -> published config (of the keys that matter).
        keys: (published template, our template) of every tensor.
        head_keys: the same for the heads that need other names than the rest, by kind of head.
        fused: (published template, our templates): one published tensor that is several of ours, of equal height, one
            below the other; split on import, joined on export, both exactly.
        copies: (published copy, published original): tensors that files may hold twice; they must be equal.
        dropped: (published template, reason) of tensors that carry nothing for us.
        regenerated: those of them that published files hold and the configuration determines, for an export.
        made: our tensors that published files lack and the configuration determines.
        tokenizer: which tokenizer belongs to it, and its traps.
    """

    name: str
    differences: str
    recognise: Callable[[Published, Collection[str]], bool]
    settings: Callable[[Published, Collection[str]], dict[str, Any]]
    published: Callable[[LongstrandConfig], Published]
    keys: Keys
    head_keys: Mapping[str, Keys] = field(default_factory=dict)
    fused: tuple[tuple[str, tuple[str, ...]], ...] = ()
    copies: Keys = ()
    dropped: Keys = ()
    regenerated: Callable[[LongstrandConfig], dict[str, Tensor]] = lambda config: {}
    made: Callable[[LongstrandConfig], dict[str, Tensor]] = lambda config: {}
    tokenizer: str = ""


ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
PUBLISHED_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}
PROBLEMS = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}


def activation(published: Published, key: str = "hidden_act") -> str:
    """Map the name of an activation; raises CheckpointError for an unknown one."""
    name = published.get(key, "gelu")
    if name not in ACTIVATIONS:
        raise CheckpointError(f"{key} '{name}' is not known; known: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def target(published: Published) -> dict[str, Any]:
    """Read the outputs, their names and the kind of problem of a published classifier, as transformers reads them."""
    outputs = published.get("num_labels") or len(published.get("id2label") or (0, 1))
    problem = PROBLEMS.get(published.get("problem_type") or "")
    if problem is None:
        problem = "regression" if outputs == 1 else "single_label"
        logger.warning("problem_type is not set; taking %s for %d outputs", problem, outputs)
    names = {int(number): str(name) for number, name in (published.get("id2label") or {}).items()}
    if sorted(names) != list(range(outputs)) or all(name == f"LABEL_{number}" for number, name in names.items()):
        return {"problem": problem, "num_outputs": outputs}
    return {"problem": problem, "num_outputs": outputs, "class_names": [names[number] for number in range(outputs)]}


def published_heads(config: LongstrandConfig, prefix: str) -> Published:
    """Write the architecture, problem type, number and names of outputs of the head of a model."""
    names = {"masked_lm": "MaskedLM", "sequence": "SequenceClassification", "token": "TokenClassification"}
    published: Published = {}
    for head in config.heads.values():
        if head.class_names:
            published["id2label"] = {str(number): name for number, name in enumerate(head.class_names)}
            published["label2id"] = {name: number for number, name in enumerate(head.class_names)}
        if head.kind == "bin":
            if (prefix, head.problem) != ("Bert", "counts"):
                raise CheckpointError("only GENA's BERT has a published head for bins, and only for counts.")
            published |= {"architectures": ["BertForEnformer"], "num_labels": head.num_outputs}
            continue
        published["architectures"] = [f"{prefix}For{names[head.kind]}"]
        if head.kind != "masked_lm":
            problem = next(theirs for theirs, ours in PROBLEMS.items() if ours == head.problem)
            published |= {"num_labels": head.num_outputs, "problem_type": problem}
    return published
