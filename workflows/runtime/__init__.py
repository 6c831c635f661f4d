"""Where and how steps run: engines, requirements, progress."""
