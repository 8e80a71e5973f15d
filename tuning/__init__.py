"""Hyperparameter search over the recipes' settings, on one machine or several."""
