"""The steps: for each, the function that makes its node (identity, inputs) and the function that fills its artifact.

Heavy imports stand in the functions that fill: a plan makes nodes only, without torch.
"""

HEAD_ROWS_PER_SHARD = 8192  # rows of head and basis, likewise
ROWS_PER_SHARD = 1024  # rows of texts and states; part of the data files' layout, so part of the identity
