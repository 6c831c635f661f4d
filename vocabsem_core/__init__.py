"""Vocabulary-defined semantics (arXiv 2401.16184): the method. Tensors in, tensors out.

Reads model folders and nothing else; runs alone, without Ray and without the other packages of this repository.
"""
