"""Register our classes with the Hugging Face Auto classes: ``import longstrand.auto``.

Afterwards ``AutoConfig``, ``AutoModel``, ``AutoModelForMaskedLM``, ``AutoModelForSequenceClassification`` and
``AutoModelForTokenClassification`` load our checkpoints, as strictly as `longstrand.load_model`.
"""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from longstrand.models.config import LongstrandConfig
from longstrand.models.pretrained import (
    LongstrandForMaskedLM,
    LongstrandForSequenceClassification,
    LongstrandForTokenClassification,
    LongstrandModel,
)

AutoConfig.register("longstrand", LongstrandConfig, exist_ok=True)
AutoModel.register(LongstrandConfig, LongstrandModel, exist_ok=True)
AutoModelForMaskedLM.register(LongstrandConfig, LongstrandForMaskedLM, exist_ok=True)
AutoModelForSequenceClassification.register(LongstrandConfig, LongstrandForSequenceClassification, exist_ok=True)
AutoModelForTokenClassification.register(LongstrandConfig, LongstrandForTokenClassification, exist_ok=True)
