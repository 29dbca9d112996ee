"""`python -m kontext` is `kontext`."""

from kontext.cli import main

main()
