"""What a folder is, what a run needs, and what is broken."""
