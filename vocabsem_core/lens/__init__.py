"""What every layer of a language model says in the vocabulary's terms (ours; the paper has no analysis by layer)."""
