"""Matrix products, memory, process groups and checkpoints."""
