"""Longstrand: DNA language models on long sequences.

Public doors: `load_model`, `load_adapter`, `load_tokenizer`, and ``import longstrand.auto`` to register our classes
with the Hugging Face Auto classes. Importing this package imports neither torch nor transformers nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longstrand.models.checkpoint import load_model as load_model
    from longstrand.models.published.adapters import load_adapter as load_adapter
    from longstrand.questions.bases import base_probabilities as base_probabilities
    from longstrand.report.locus import Genes as Genes
    from longstrand.report.locus import Logo as Logo
    from longstrand.report.locus import Marks as Marks
    from longstrand.report.locus import Ruler as Ruler
    from longstrand.report.locus import Tokens as Tokens
    from longstrand.report.locus import Track as Track
    from longstrand.report.locus import plot as plot
    from longstrand.tokenization.hub import load_tokenizer as load_tokenizer

__version__ = "0.1.0"

_DOORS = {
    "Genes": "longstrand.report.locus",
    "Logo": "longstrand.report.locus",
    "Marks": "longstrand.report.locus",
    "Ruler": "longstrand.report.locus",
    "Tokens": "longstrand.report.locus",
    "Track": "longstrand.report.locus",
    "base_probabilities": "longstrand.questions.bases",
    "load_adapter": "longstrand.models.published.adapters",
    "load_model": "longstrand.models.checkpoint",
    "load_tokenizer": "longstrand.tokenization.hub",
    "plot": "longstrand.report.locus",
}
__all__ = ["__version__", *_DOORS]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _DOORS:
        raise AttributeError(f"module 'longstrand' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_DOORS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
