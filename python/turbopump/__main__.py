"""`python -m turbopump`: the command line, as the installed `turbopump` has it."""

from turbopump.cli import main

main()
