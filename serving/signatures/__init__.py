"""The functions a SavedModel offers: named tensors in and out, guards on every input.

A request of the wrong rank that reaches a convolution aborts a whole TF Serving process. So each
input passes `tf.ensure_shape` and checks of its values and of its size first, which turn a malformed
request, or one that asks for too much, into INVALID_ARGUMENT.
"""
