"""Pretraining of a small causal language model."""
