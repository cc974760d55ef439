"""Probing: what a simple model reads off a frozen encoder, layer by layer."""
