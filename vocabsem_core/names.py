"""Names and constants that plans share with the method. No torch here: a plan imports it.

Each choice that a user can make is listed once, here; configuration, formulas and documentation read it from here.
"""

from typing import Literal

ModelKind = Literal["causal", "masked", "seq2seq"]
RowTokens = Literal["auto", "first", "last", "mean"]  # which of a word's tokens are the rows that stand for it
LabelTokens = Literal[RowTokens, "whole"]
Similarity = Literal["cosine", "euclidean", "dot"]
Distance = Literal["cosine", "euclidean"]
Metric = Literal["accuracy", "macro_f1"]
Detection = Literal["auroc", "fpr95"]  # how well anomalies are told from what is known
Loss = Literal["labels", "vocabulary", "sm-gt"]
LabelRows = Literal["basis", "head", "embedding", "random"]  # what stands for a label in the space of states
Targets = Literal[LabelRows, "class-means", "learned"]
PriorRows = Literal[LabelRows, "shuffled", "unrelated", "none"]
LayerBasis = Literal["head", "embedding", "interpolated", "interpolated-raw", "affine"]  # at any layer; see `lens`
Centre = Literal["training", "content-free", "none"]

# Singular values of a head below this share of the largest are cut (our choice; recorded in the basis step's key).
RCOND = 1e-6

# The column of whole label words' log-likelihoods, in place of a layer's.
WHOLE = "whole"

# At the end of a layer's name: the layer's mean over the prompt's tokens, not its state at the label's position.
MEAN = ":mean"
ADAPTER_WEIGHTS = "adapter_model.safetensors"  # peft's name of the file in an adapter's folder
