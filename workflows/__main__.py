"""`python -m workflows` is `vocabsem`."""

from workflows.cli import main

main()
