"""Draw the factor of the learning rate over ten epochs of a hundred steps, for each schedule with one epoch of warm-up."""

import keras
import matplotlib.pyplot as plt
import numpy as np

from recipes.training import schedules

EPOCH, EPOCHS, WARMUP = 100, 10, 100

shown = {
    "constant": schedules.Constant(1.0, warmup_steps=WARMUP),
    "exponential": schedules.Exponential(1.0, decay_steps=EPOCH, rate=0.9, warmup_steps=WARMUP),
    "inverse-square-root": schedules.InverseSquareRoot(1.0, decay_steps=EPOCH, warmup_steps=WARMUP),
    "polynomial": schedules.Polynomial(1.0, total_steps=EPOCH * EPOCHS, warmup_steps=WARMUP),
    "cosine": schedules.Cosine(1.0, total_steps=EPOCH * EPOCHS, warmup_steps=WARMUP),
    "one-cycle (no warm-up)": schedules.OneCycle(1.0, total_steps=EPOCH * EPOCHS),
    "wsd": schedules.WarmupStableDecay(1.0, total_steps=EPOCH * EPOCHS, warmup_steps=WARMUP),
    "plateau, halved at epoch 6": schedules.Plateau(1.0, warmup_steps=WARMUP),
}
steps = np.arange(EPOCH * EPOCHS)
figure, axes = plt.subplots(4, 2, figsize=(6.4, 7), sharex=True, sharey=True, layout="constrained")
for (name, schedule), axis in zip(shown.items(), axes.flat, strict=True):
    factors = keras.ops.convert_to_numpy(keras.ops.broadcast_to(schedule(steps), steps.shape)).copy()
    if name.startswith("plateau"):
        factors[steps >= 6 * EPOCH] /= 2
    axis.plot(steps / EPOCH, factors)
    axis.set_title(name, fontsize=9)
    axis.set_ylim(0, 1.05)
figure.supxlabel("epoch", fontsize=9)
figure.supylabel("factor of the learning rate", fontsize=9)
