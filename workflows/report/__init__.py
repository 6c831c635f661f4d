"""The report of a comparison: one HTML page, and its tables as Markdown and LaTeX. Made from a run's record alone."""
