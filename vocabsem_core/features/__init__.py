"""Features: model folders, prompts, hidden states and the LM head."""
