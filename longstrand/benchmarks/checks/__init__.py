"""Checks of data before a model sees it: leakage between splits, labels that are given away, broken signals."""
