"""Data: sources, splits, augmentation, tokenizers, and batches for training and evaluation."""
