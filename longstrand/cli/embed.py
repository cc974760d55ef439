"""``longstrand embed``: turn sequences into vectors with any model; see `longstrand.cli.predict`."""

from longstrand.cli.predict import embed_app as app

__all__ = ["app"]
