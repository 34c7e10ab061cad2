"""`python -m ftmodel`."""

from ftmodel.cli import main

main()
