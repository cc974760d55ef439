"""Metrics, intervals, paired tests and leakage."""
