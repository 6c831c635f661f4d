"""The `pretrain` workflow."""
