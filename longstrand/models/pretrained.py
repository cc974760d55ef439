"""Our networks as transformers models, for Trainer, PEFT, pipelines and Auto classes; strict loading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging as hf_logging

from longstrand.models.config import LongstrandConfig
from longstrand.models.encoder import Encoder, EncoderLayer, refuse_unknown
from longstrand.models.memory.segments import InitialMemory
from longstrand.models.network import Network, with_special_ids
from longstrand.models.networks import BinRegression, MaskedLM, SequenceClassification, TokenClassification, only_head
from longstrand.models.published.to_ours import import_published, is_published, published_name
from longstrand.models.strict_load import (
    DECODER,
    WORD_EMBEDDINGS,
    CheckedWeights,
    assemble,
    check_weights,
    resolve_dtype,
)
from longstrand.models.tensors import read_tensors
from longstrand.runtime import model_folder


class PretrainedLayer(GradientCheckpointingLayer, EncoderLayer):
    """A layer that transformers may recompute in the backward pass."""


class LongstrandPreTrainedModel(PreTrainedModel, Network):  # type: ignore[misc]
    """Base of the encoder and of the encoder with a head."""

    config_class = LongstrandConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _no_split_modules: ClassVar[list[str]] = ["PretrainedLayer"]  # type: ignore[misc]

    def __init__(self, config: LongstrandConfig, *, shared: bool = False, **unknown: Any) -> None:
        refuse_unknown(unknown)
        if not shared:
            config = only_head(config, self.kind if self.kind != "encoder" else None)
        super().__init__(config)
        self.build(config)  # type: ignore[operator]
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint folder (or hub id), ours or published, accounting for every tensor.

        Args:
            pretrained_model_name_or_path: folder, or id on the hub.
            *args: as in transformers.
            **kwargs: ``config``; ``new_head``, a dictionary of head settings (``{}`` for masked_lm) that asks for a
                freshly initialised head; anything else as in transformers.

        Raises:
            CheckpointError: missing, unexpected, mis-shaped or damaged tensors, all listed; a missing head without
                ``new_head``.
        """
        if pretrained_model_name_or_path is None:
            return super().from_pretrained(None, *args, **kwargs)
        loading_info, new_head = kwargs.pop("output_loading_info", False), kwargs.pop("new_head", None)
        folder = model_folder(pretrained_model_name_or_path, **kwargs)
        kwargs.pop("subfolder", None)
        asked = [kwargs.pop(name, None) for name in ("dtype", "torch_dtype")]
        dtype = asked[0] or asked[1] or "auto"
        config = kwargs.pop("config", None)
        if not isinstance(config, LongstrandConfig):
            config, kwargs = LongstrandConfig.from_pretrained(folder, return_unused_kwargs=True, **kwargs)
        wanted = None if dtype == "auto" else resolve_dtype(dtype)
        tensors = read_tensors(folder, wanted)
        known: dict[str, Any] = {}
        if is_published(folder):
            imported = import_published(folder, tensors=tensors)
            tensors = imported.tensors
            known = {"problems": imported.problems, "rename": partial(published_name, imported.family)}
        if new_head is not None and cls.kind == "sequence":
            new_head = with_special_ids(new_head, folder)
        weights = check_weights(config, tensors, cls.kind, where=str(folder), new_head=new_head, **known)
        model = cls.from_checked(weights, dtype, **kwargs)
        model.name_or_path = model.config.name_or_path = str(pretrained_model_name_or_path)
        model.describe(folder, fresh=new_head is not None)
        if not loading_info:
            return model
        fresh = model.state_dict().keys() - weights.tensors.keys() - {DECODER}
        return model, {"missing_keys": fresh, "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}

    @classmethod
    def from_checked(cls, weights: CheckedWeights, dtype: torch.dtype | str = "auto", **kwargs: Any) -> Self:
        """Build the model, in evaluation mode, around tensors that fit; a head they lack is initialised.

        Args:
            weights: the tensors.
            dtype: as in `longstrand.models.strict_load.assemble`.
            **kwargs: what only transformers can do (``device_map``, ``quantization_config``, ...); then it loads.
        """
        if kwargs:
            kind = resolve_dtype(dtype, weights.tensors)
            loaded: Any
            with quiet_transformers():
                loaded = super().from_pretrained(
                    None,
                    config=weights.config,
                    state_dict=weights.tensors,
                    dtype=kind,
                    output_loading_info=True,
                    **kwargs,
                )
            model, info = loaded
            assert not info["unexpected_keys"] and not info["mismatched_keys"], info
            return model
        model = assemble(cls, weights, dtype)
        model._initialise_absent(resolve_dtype(dtype, weights.tensors))
        return model.eval()

    def _initialise_absent(self, dtype: torch.dtype) -> None:
        """Draw the numbers of parameters that no tensor filled; the others stay."""
        there = [parameter for parameter in self.parameters() if not parameter.is_meta]
        for parameter in there:
            parameter._is_hf_initialized = True  # type: ignore[attr-defined]  # what transformers' initialisation leaves alone
        for module in self.modules():
            absent = [name for name, one in module.named_parameters(recurse=False) if one.is_meta]
            for name in absent:
                shape = getattr(module, name).shape
                setattr(module, name, nn.Parameter(torch.empty(shape, dtype=dtype, device="cpu")))
            if absent:
                self._init_weights(module)
        for parameter in there:
            del parameter._is_hf_initialized  # type: ignore[attr-defined]
        self.config.dtype = dtype

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write config.json and model.safetensors as transformers does, without its progress bars.

        For a finished model prefer `longstrand.models.checkpoint.save_checkpoint`: tokenizer, record, atomic.
        """
        config = self.config
        self.config = only_head(config, None) if self.kind == "encoder" else config  # type: ignore[arg-type]
        try:
            with quiet_transformers():
                super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.config = config

    def get_input_embeddings(self) -> nn.Embedding:
        """Give the word embedding."""
        return self._encoder().embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        """Replace the word embedding."""
        self._encoder().embeddings.word_embeddings = value

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, InitialMemory):
            module.reset(self.config.initializer_range)

    def make_encoder(self, config: LongstrandConfig) -> Encoder:
        """Make the encoder of a model with a head, a transformers model itself; it shares the configuration."""
        return LongstrandModel(config, shared=True)

    def _encoder(self) -> Encoder:
        return self if isinstance(self, Encoder) else self.encoder  # type: ignore[return-value]


class LongstrandModel(LongstrandPreTrainedModel, Encoder):  # type: ignore[misc]
    """The encoder without a head."""

    layer_class: ClassVar[type[EncoderLayer]] = PretrainedLayer


class LongstrandForMaskedLM(LongstrandPreTrainedModel, MaskedLM):  # type: ignore[misc]
    """Encoder with a masked-LM head; with labels, logits are computed at labelled positions only."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {DECODER: WORD_EMBEDDINGS}  # type: ignore[misc]

    def get_output_embeddings(self) -> nn.Linear:
        """Give the decoder."""
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the decoder."""
        self.lm_head.decoder = new_embeddings


class LongstrandForSequenceClassification(LongstrandPreTrainedModel, SequenceClassification):  # type: ignore[misc]
    """Encoder with one output vector per sequence: classes, labels or numbers."""


class LongstrandForTokenClassification(LongstrandPreTrainedModel, TokenClassification):  # type: ignore[misc]
    """Encoder with one output vector per token: classes, labels or numbers."""


class LongstrandForBinRegression(LongstrandPreTrainedModel, BinRegression):  # type: ignore[misc]
    """Encoder with one output vector per bin."""


MODELS: dict[str, type[LongstrandPreTrainedModel]] = {
    model.kind: model
    for model in (
        LongstrandModel,
        LongstrandForMaskedLM,
        LongstrandForSequenceClassification,
        LongstrandForTokenClassification,
        LongstrandForBinRegression,
    )
}


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' own loading report and progress bars; our report is complete and is an error."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
