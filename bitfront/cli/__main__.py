"""`python -m bitfront.cli`: the command where it is not on the path."""

from bitfront.cli import main

main()
