"""Finetuning of the language model: LoRA, IA3, all weights."""
