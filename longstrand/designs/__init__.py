"""Change a sequence until a score says what is wanted, within constraints, and say whether to believe it."""
