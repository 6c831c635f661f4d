"""What makes documentation pages; not part of the wheel."""
