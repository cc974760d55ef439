"""Run the command line as ``python -m longstrand``."""

from longstrand.cli import main

main()
