"""Inference: models applied to sequences, intervals and whole contigs; jobs that write files."""
