"""The command line."""

from ftmodel.cli.app import main

__all__ = ["main"]
