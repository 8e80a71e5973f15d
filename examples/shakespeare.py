"""Train a character-level Transformer on tiny Shakespeare and sample from it, in plain Keras.

    pip install tensorflow tensorflow-datasets importlib-resources
    python shakespeare.py

The model and its training are those of the recipe `lm-transformer`: rotary positions, normalised queries and
keys, squared ReLU, short causal convolutions and the Muon optimizer. Copy this file and change it.
"""

import argparse

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from keras import layers, ops

CONTEXT = 256  # characters that the model sees at once
WIDTH = 128
HEADS = 2
BLOCKS = 4
BATCH_SIZE = 4
STEPS_PER_EPOCH = 350
LEARNING_RATE = 0.02  # for hidden matrices; Muon gives half of it to the rest, by Adam
WEIGHT_DECAY = 0.1
WARMUP_STEPS = 70


def load_text():
    """Return the training, validation and test text: the first 90 %, then 5 % each."""
    parts = tfds.load("tiny_shakespeare", split=["train", "validation", "test"], batch_size=-1)
    return [part["text"].numpy()[0].decode() for part in parts]


def dense(units, name, zero=False):
    """Return a dense layer. `zero`: a residual branch that starts at 0 leaves its input as it is."""
    init = "zeros" if zero else keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal")
    return layers.Dense(units, use_bias=False, kernel_initializer=init, name=name)


def unit_rms(x):
    """Scale the last axis to a root mean square of 1."""
    return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6)


def rotate(x, positions):
    """Rotate pairs of features by angles that grow with the position (Su et al. 2021, arXiv:2104.09864)."""
    half = x.shape[-1] // 2
    frequencies = 10_000.0 ** (-np.arange(half) / half)
    angles = ops.cast(positions, x.dtype)[:, None] * frequencies.astype("float32")  # (time, half)
    cos, sin = ops.cos(angles), ops.sin(angles)
    first, second = x[..., :half], x[..., half:]
    return ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class Attention(layers.Layer):
    """Causal self-attention with normalised queries and keys (Henry et al. 2020, arXiv:2010.04245)."""

    def build(self, shape):
        """Plain 2-D kernels: Muon does not update the 3-D ones of Keras's MultiHeadAttention."""
        self.query, self.key, self.value = (dense(WIDTH, name) for name in ("query", "key", "value"))
        self.project = dense(WIDTH, "project", zero=True)
        for layer in (self.query, self.key, self.value, self.project):
            layer.build(shape)
        # Scores of unit variance are too flat for a softmax, so each head learns their scale.
        self.temperature = self.add_weight(shape=(HEADS, 1, 1), initializer=keras.initializers.Constant(1.5))

    def call(self, x, positions, cache):
        """Return the output, (batch, time, width), and the keys and values of all positions so far."""
        q, k, v = (self.split(layer(x)) for layer in (self.query, self.key, self.value))
        q = rotate(unit_rms(q) * self.temperature, positions)
        k = rotate(unit_rms(k), positions)
        if cache is not None:  # write the new positions behind those read before
            start = (0, 0, positions[0], 0)
            k, v = ops.slice_update(cache[0], start, k), ops.slice_update(cache[1], start, v)
        scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / (WIDTH // HEADS) ** 0.5
        visible = positions[:, None] >= ops.arange(k.shape[2])  # (time, positions in the cache)
        weights = ops.softmax(ops.where(visible, scores, -1e9))  # (batch, heads, time, positions)
        mixed = ops.transpose(ops.matmul(weights, v), (0, 2, 1, 3))  # (batch, time, heads, head width)
        return self.project(ops.reshape(mixed, (-1, x.shape[1], WIDTH))), (k, v)

    def split(self, x):
        """Reshape (batch, time, width) to (batch, heads, time, head width)."""
        return ops.transpose(ops.reshape(x, (-1, x.shape[1], HEADS, WIDTH // HEADS)), (0, 2, 1, 3))


class CausalConvolution(layers.Layer):
    """Mix each feature with the two positions before it (So et al. 2021, arXiv:2109.08668)."""

    def build(self, shape):
        """Start as the identity: weight 1 for the position itself, 0 for the two before it."""
        identity = np.array([[0.0], [0.0], [1.0]], "float32") * np.ones(WIDTH, "float32")
        self.kernel = self.add_weight(shape=(3, WIDTH), initializer=lambda *_, **__: ops.array(identity))

    def call(self, x, before):
        """Return the output, (batch, time, width), and the last two inputs, (batch, 2, width)."""
        padded = ops.pad(x, [[0, 0], [2, 0], [0, 0]]) if before is None else ops.concatenate([before, x], 1)
        mixed = sum(padded[:, shift : shift + x.shape[1]] * self.kernel[shift] for shift in range(3))
        return mixed, padded[:, -2:]


class Block(layers.Layer):
    """Attention and a feed-forward network, each on a normalised copy of its input and added to it."""

    def build(self, shape):
        """Create and build the layers."""
        self.norm_1, self.norm_2 = (layers.RMSNormalization(epsilon=1e-6) for _ in range(2))
        self.convolution_1 = CausalConvolution(name="convolution_1")
        self.convolution_2 = CausalConvolution(name="convolution_2")
        self.attention = Attention()
        self.expand, self.contract = dense(4 * WIDTH, "expand"), dense(WIDTH, "contract", zero=True)
        self.contract.build((*shape[:-1], 4 * WIDTH))
        around = (self.norm_1, self.convolution_1, self.norm_2, self.convolution_2)
        for layer in (*around, self.attention, self.expand):
            layer.build(shape)

    def call(self, x, positions, cache):
        """Return the output, (batch, time, width), and the cache for the positions that follow."""
        before_1, before_2, keys_and_values = cache or (None, None, None)
        h, before_1 = self.convolution_1(self.norm_1(x), before_1)
        h, keys_and_values = self.attention(h, positions, keys_and_values)
        x = x + h
        h, before_2 = self.convolution_2(self.norm_2(x), before_2)
        x = x + self.contract(ops.square(ops.relu(self.expand(h))))
        return x, (before_1, before_2, keys_and_values)


class LanguageModel(keras.Model):
    """int32 ids (batch, time) → float32 logits of the next character (batch, time, vocabulary)."""

    def __init__(self, vocabulary_size):
        super().__init__()
        self.embedding = layers.Embedding(vocabulary_size, WIDTH, keras.initializers.RandomNormal(stddev=1.0))
        self.blocks = [Block(name=f"block_{number}") for number in range(BLOCKS)]
        self.norm = layers.RMSNormalization(epsilon=1e-6)
        self.head = layers.Dense(vocabulary_size, use_bias=False, kernel_initializer="zeros", name="head")
        self(np.zeros((1, CONTEXT), "int32"))  # builds it

    def call(self, ids):
        """Return the logits."""
        return self.read(ids, start=0, caches=[None] * BLOCKS)[0]

    def read(self, ids, start, caches):
        """Return the logits of ids at positions start, start + 1, …, and the caches for what follows."""
        positions = start + ops.arange(ids.shape[1])
        x = unit_rms(self.embedding(ids))
        following = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block(x, positions, cache)
            following.append(cache)
        return self.head(self.norm(x)), following


@keras.saving.register_keras_serializable()
class WarmupThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Rise in a straight line for `warmup` steps, then fall in one to 0 at step `total`."""

    def __init__(self, peak, warmup, total):
        self.peak, self.warmup, self.total = peak, warmup, total

    def __call__(self, step):
        """Return the learning rate of a step, counted from 0."""
        step = ops.cast(step, "float32")
        return self.peak * ops.minimum(step / self.warmup, (self.total - step) / (self.total - self.warmup))

    def get_config(self):
        """Return the arguments of the constructor."""
        return {"peak": self.peak, "warmup": self.warmup, "total": self.total}


def consecutive_windows(ids):
    """Return windows one after the other, two of (n, CONTEXT). What does not fill the last is left out."""
    count = (len(ids) - 1) // CONTEXT
    return ids[: count * CONTEXT].reshape(count, -1), ids[1 : count * CONTEXT + 1].reshape(count, -1)


def training_windows(ids, seed):
    """Yield batches of windows in random order, two of (BATCH_SIZE, CONTEXT); each pass cuts the text elsewhere."""
    random = np.random.default_rng(seed)
    while True:
        inputs, targets = consecutive_windows(ids[random.integers(CONTEXT) :])
        order = random.permutation(len(inputs) // BATCH_SIZE * BATCH_SIZE)
        for rows in order.reshape(-1, BATCH_SIZE):
            yield inputs[rows], targets[rows]


def sample(model, ids, length, temperature=0.8, seed=0):
    """Return the ids of a prompt, at least one, and of `length` characters that continue it."""
    inputs, keys = ops.zeros((1, 2, WIDTH)), ops.zeros((1, HEADS, CONTEXT, WIDTH // HEADS))
    empty = [(inputs, inputs, (keys, keys))] * BLOCKS
    read = tf.function(model.read, jit_compile=True)
    random = np.random.default_rng(seed)
    ids, caches, start = list(ids), empty, 0  # the caches hold the first `start` positions of the window
    unread = ids[-CONTEXT:]
    for _ in range(length):
        if start + len(unread) > CONTEXT:  # the window is full: read its newer half again
            unread, caches, start = ids[-CONTEXT // 2 :], empty, 0
        logits, caches = read(tf.constant([unread]), tf.constant(start), caches)
        start += len(unread)
        scores = logits[0, -1].numpy() / temperature
        # The largest of scores with Gumbel noise is a draw from their softmax.
        unread = [int(np.argmax(scores + random.gumbel(size=scores.shape)))]
        ids += unread
    return ids


def main(epochs=10, seed=0):
    """Train, print a sample, and return the loss in nats per character on the last 10 % of the text."""
    keras.utils.set_random_seed(seed)
    texts = load_text()
    vocabulary = sorted(set("".join(texts)))
    id_of = {character: number for number, character in enumerate(vocabulary)}
    train, validation, test = (np.array([id_of[c] for c in text], "int32") for text in texts)

    model = LanguageModel(len(vocabulary))
    optimizer = keras.optimizers.Muon(
        WarmupThenLinear(LEARNING_RATE, WARMUP_STEPS, epochs * STEPS_PER_EPOCH),
        weight_decay=WEIGHT_DECAY,
        adam_weight_decay=WEIGHT_DECAY,
        adam_lr_ratio=0.5,
        adam_beta_2=0.95,
        exclude_layers=["embedding", "convolution", "head"],
    )
    scales = [variable for variable in model.trainable_variables if len(variable.shape) != 2]
    optimizer.exclude_from_weight_decay(var_list=scales)
    model.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=25,
        jit_compile=True,
    )
    windows, held_out = training_windows(train, seed), consecutive_windows(validation)
    model.fit(
        windows, epochs=epochs, steps_per_epoch=STEPS_PER_EPOCH, validation_data=held_out, shuffle=False
    )
    model.save_weights("shakespeare.weights.h5")
    loss = model.evaluate(*consecutive_windows(np.concatenate([validation, test])), verbose=0)
    print("".join(vocabulary[i] for i in sample(model, validation[:16], 500)))
    print(f"loss {loss:.4f} nats per character on the last 10 % of the text")
    return loss


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
