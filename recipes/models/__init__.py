"""The networks, in keras.ops and Keras layers only."""
