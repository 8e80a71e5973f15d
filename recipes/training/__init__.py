"""Training a Keras model: the loop, optimizers, schedules, losses and callbacks."""
