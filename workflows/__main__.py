"""`python -m workflows` is `vocabsem`."""

from workflows.cli.app import main

main()
