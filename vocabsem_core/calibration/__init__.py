"""Semantic calibration: the modules and their training, one or many side by side (paper, section 3.3)."""
