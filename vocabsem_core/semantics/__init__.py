"""The semantic basis of a head, and the affinity of states to it (paper, sections 3.1 and 3.2)."""
