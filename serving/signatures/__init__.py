"""The signatures of a SavedModel: functions with named tensors, and guards on every input.

A request of the wrong rank that reaches a convolution aborts a TF Serving process. So each input passes
`tf.ensure_shape` and checks of its values and its size first: a malformed request, or one above the
limits, is refused with INVALID_ARGUMENT.
"""
