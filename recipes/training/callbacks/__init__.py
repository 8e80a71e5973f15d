"""Callbacks, one class a file.

Each starts anew in `on_train_begin`. Those that remember something between epochs are `Stateful`,
so that `recipes.training.callbacks.resume.Checkpoint` can keep it over a kill.
"""
