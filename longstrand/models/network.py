"""What every model of ours is, with or without transformers: a module that knows its folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn

from longstrand.errors import TokenizerError
from longstrand.models.config import Head, LongstrandConfig
from longstrand.models.reading import Reading, read_reading
from longstrand.models.tensors import RECORD, read_record
from longstrand.runtime import TOKENIZER_FILES, read_json
from longstrand.tokenization.base import Tokenizer

logger = logging.getLogger(__name__)


class Network(nn.Module):
    """Base of the encoder, of the encoder with a head, and of both as transformers models.

    Attributes:
        kind: of its head (masked_lm, sequence, token, bin), or encoder.
        config: its configuration.
        head_settings: of its head.
        folder: where it was loaded from, or None.
        tokenizer_fingerprint: of the tokenizer that its checkpoint was written with, if it says so.
        reading: how it was shown its input in training; None if nobody wrote it down, or with a fresh head.
    """

    kind: ClassVar[str] = "encoder"
    config: LongstrandConfig
    head_settings: Head | None = None
    folder: Path | None = None
    tokenizer_fingerprint: str | None = None
    reading: Reading | None = None
    _tokenizer: Tokenizer | None = None

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Return the tokenizer of the model's folder, opened on first use; None if there is none beside the weights."""
        folder = self.folder
        if self._tokenizer is None and folder is not None:
            self._tokenizer = tokenizer_of(folder)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer

    def describe(self, folder: Path, tokenizer: Tokenizer | None = None, *, fresh: bool = False) -> Self:
        """Remember where the model comes from and how it was shown its input (not with a fresh head); returns it."""
        self.folder, self.tokenizer = folder, tokenizer
        self.tokenizer_fingerprint = read_record(folder).get("tokenizer_fingerprint")
        self.reading = None if fresh else read_reading(folder)
        if (
            not fresh
            and self.kind not in ("encoder", "masked_lm")
            and not (folder / RECORD).is_file()
            and _is_ours(folder)
        ):
            logger.warning(
                "%s: %s is missing, which says how training read its sequences (strand, cut, window, exact text); "
                "they are read as they are, on one strand; copy the whole folder of a model", folder, RECORD
            )  # fmt: skip
        return self

    def require_tokenizer(self) -> Tokenizer:
        """Return the tokenizer.

        Raises:
            TokenizerError: there is none, or it is damaged.
        """
        tokenizer = self.tokenizer
        if tokenizer is None:
            where = "this model" if self.folder is None else f"{self.folder}: this model"
            raise TokenizerError(
                f"{where} has no tokenizer beside its weights; pass one: tokenizer=load_tokenizer(...)."
            )
        return tokenizer


def _is_ours(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and read_json(config).get("model_type") == LongstrandConfig.model_type


def tokenizer_of(folder: Path) -> Tokenizer | None:
    """Open the tokenizer beside the weights in a folder, or return None if there is none."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    from longstrand.tokenization.hub import load_tokenizer

    return load_tokenizer(folder)


def with_special_ids(head: Mapping[str, Any], folder: Path, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """Tell a new sequence head which ids are no DNA, so that ``mean`` and ``max`` leave them out.

    Args:
        head: its settings; what it says itself stays.
        folder: of the model, whose tokenizer is asked.
        tokenizer: asked instead.
    """
    if head.get("pooling", "mean") not in ("mean", "max") or "special_token_ids" in head:
        return dict(head)
    tokenizer = tokenizer_of(folder) if tokenizer is None else tokenizer
    ids = getattr(tokenizer, "special_ids", None)
    if ids is None:
        logger.warning("%s: no tokenizer beside the weights, so pooling counts special tokens, too", folder)
    return {**head, "special_token_ids": None if ids is None else sorted(ids)}
