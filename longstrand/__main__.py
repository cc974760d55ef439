"""Run the command line as ``python -m longstrand``."""

from longstrand.cli.main import main

main()
