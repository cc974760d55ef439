"""Models behind an address: one process, one queue a device that counts tokens, HTTP around it, jobs beside it."""
