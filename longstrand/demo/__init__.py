"""The first five minutes, and the simulated genomes that they use."""
