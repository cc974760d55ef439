"""DNA as data: sequences, intervals, FASTA files, simulated genomes. No torch in here."""
