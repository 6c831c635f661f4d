"""Fitted methods in use."""
