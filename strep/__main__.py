"""`python -m strep`: the same as the command `strep`."""

from strep.cli import main

main()
