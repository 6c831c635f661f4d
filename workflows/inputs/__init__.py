"""What a workflow file names: tasks, models, rows, text."""
