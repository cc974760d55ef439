"""What a model can be asked; variants, explanations, designs and the server stand on these.

- `scores.scorer` makes the function ``score(sequences) -> float32 (n, outputs)``; any such function does as well;
- `tokens.masked_log_probabilities`, `tokens.states`, `tokens.gradients`: rows by token, as in `tokens.read_text`;
- `bases.base_probabilities`: what a masked LM expects at each base.
"""
