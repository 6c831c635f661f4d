"""Steps on a user's own network: its rows, its head, the classes that stand for labels, and its states."""
