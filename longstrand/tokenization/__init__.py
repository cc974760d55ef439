"""Strings to ids and back to bases. No torch."""
