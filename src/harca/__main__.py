"""`python -m harca`."""

from harca.cli import main

main()
