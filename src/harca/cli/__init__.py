"""The command line: parse, call one function, render. Heavy imports happen in commands."""

from harca.cli.app import main

__all__ = ["main"]
