"""How work runs: steps, keys, the artifact store, execution, tracking. Knows no language model, no task, no method."""
