"""Results: one schema, costs, budgets, the table."""
