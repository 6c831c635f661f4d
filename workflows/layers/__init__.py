"""The `layers` workflow: what every layer of a model means in the vocabulary's terms."""
