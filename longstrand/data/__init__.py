"""Windows, masking, batches and labelled tables. No models."""
