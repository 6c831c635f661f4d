"""What a method sees of a task: stored states, or prompts and the model."""
