"""One encoder, its heads, the table of published families, and strict checkpoints."""
