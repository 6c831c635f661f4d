"""Runs: their record, the plan, look-up by prefix, garbage collection, archives."""
