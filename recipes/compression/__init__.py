"""Smaller models from trained ones: which units matter, leaving them out, shrinking, int8 weights."""
