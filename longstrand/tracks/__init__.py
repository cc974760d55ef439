"""Tracks along a genome: whole runs of a model to folders that genome browsers open, and letters of a language model.

- `jobs.predict_tracks`: contigs or regions of a genome, all outputs and strands in one pass;
- `folder`: what lies beside the tracks (``tracks.json``, UCSC and IGV files, calls, GFF3, the page).
"""
