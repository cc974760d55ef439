"""Why a model says what it says: attributions, motifs, attention, reconstruction, dependencies, embeddings."""
