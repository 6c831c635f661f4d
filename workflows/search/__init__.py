"""Search over settings: trials and where they come from."""
