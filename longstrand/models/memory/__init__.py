"""Recurrent memory around the encoder."""
