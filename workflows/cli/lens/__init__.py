"""The command `vocabsem lens`."""
