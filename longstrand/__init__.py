"""Longstrand: DNA language models on long sequences.

The public verbs, each imported on first use: importing this package imports neither torch nor transformers nor numpy.
``import longstrand.auto`` registers our classes with the Hugging Face Auto classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longstrand.benchmarks.probe_run import probe as probe
    from longstrand.benchmarks.run import benchmark as benchmark
    from longstrand.explain.jobs import attribute as attribute
    from longstrand.explain.jobs import attribute_file as attribute_file
    from longstrand.inference.jobs import embed_file as embed_file
    from longstrand.inference.jobs import predict_file as predict_file
    from longstrand.inference.verbs import embed as embed
    from longstrand.inference.verbs import iter_predict as iter_predict
    from longstrand.inference.verbs import predict as predict
    from longstrand.inference.verbs import predict_bases as predict_bases
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
    from longstrand.serve.client import connect as connect
    from longstrand.tokenization.hub import load_tokenizer as load_tokenizer
    from longstrand.tracks.jobs import predict_tracks as predict_tracks
    from longstrand.tracks.logo import write_logo as write_logo
    from longstrand.training.evaluate import evaluate as evaluate
    from longstrand.training.verbs import finetune as finetune
    from longstrand.training.verbs import pretrain as pretrain
    from longstrand.variants.jobs import score_variants as score_variants
    from longstrand.variants.jobs import score_variants_file as score_variants_file

__version__ = "0.1.0"

_VERBS = {
    "longstrand.models.checkpoint": ["load_model"],
    "longstrand.models.published.adapters": ["load_adapter"],
    "longstrand.tokenization.hub": ["load_tokenizer"],
    "longstrand.inference.verbs": ["embed", "predict", "predict_bases", "iter_predict"],
    "longstrand.inference.jobs": ["predict_file", "embed_file"],
    "longstrand.tracks.jobs": ["predict_tracks"],
    "longstrand.tracks.logo": ["write_logo"],
    "longstrand.questions.bases": ["base_probabilities"],
    "longstrand.variants.jobs": ["score_variants", "score_variants_file"],
    "longstrand.explain.jobs": ["attribute", "attribute_file"],
    "longstrand.designs.jobs": ["design", "design_file"],
    "longstrand.training.verbs": ["finetune", "pretrain"],
    "longstrand.training.evaluate": ["evaluate", "calibrate"],
    "longstrand.benchmarks.run": ["benchmark"],
    "longstrand.benchmarks.probe_run": ["probe"],
    "longstrand.serve.client": ["connect"],
    "longstrand.report.locus": ["plot", "Ruler", "Track", "Logo", "Tokens", "Genes", "Marks"],
}
_LAZY = {name: module for module, names in _VERBS.items() for name in names}
__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'longstrand' has no attribute '{name}'")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
