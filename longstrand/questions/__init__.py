"""What a model can be asked: a score, masked log-probabilities, states, gradients; and what it expects at each base.

Variants, explanations, designs and the server stand on these. `scorer` makes the function ``score(sequences) -> float32
(n, outputs)`` that they take; any other such function does as well. The other questions return rows by token, aligned
with `read_text`.
"""

from longstrand.questions.bases import BaseDistribution, base_distribution, base_probabilities
from longstrand.questions.scores import Score, scorer
from longstrand.questions.tokens import (
    Gradients,
    MaskedText,
    gradients,
    iter_log_probabilities,
    masked_log_probabilities,
    read_text,
    states,
)

__all__ = [
    "BaseDistribution",
    "Gradients",
    "MaskedText",
    "Score",
    "base_distribution",
    "base_probabilities",
    "gradients",
    "iter_log_probabilities",
    "masked_log_probabilities",
    "read_text",
    "scorer",
    "states",
]
