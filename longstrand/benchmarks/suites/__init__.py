"""Published suites and how each of their tasks is made from the files that were released."""
