"""Attention: who may see whom, and the paths that compute it."""
