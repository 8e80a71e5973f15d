"""What the networks that are classes of their own share: they are saved as their settings."""

from typing import Any, ClassVar, Self

import keras
from keras import ops

from recipes.config import from_dict, to_dict
from recipes.models import Tensor

INT8_WEIGHTS = keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)
"""Weights as whole numbers from -127 to 127 with a scale for each output; activations stay float32."""


def tied_logits(x: Tensor, embedding: keras.layers.Embedding) -> Tensor:
    """Return logits (..., vocabulary_size) of vectors (..., width), with the token embedding as the last matrix.

    They are float32 whatever the precision of x: bfloat16 has 2 digits, too few for a softmax. The embedding
    has entries of size 1, the head wants them of size 1 / sqrt(width).
    """
    matrix = ops.transpose(ops.cast(embedding.embeddings, "float32"))
    return ops.matmul(ops.cast(x, "float32"), matrix) * embedding.output_dim**-0.5


class ConfiguredModel(keras.Model):
    """A model that is saved as its settings and a few other arguments.

    Args:
        settings: What `settings_type` says.

    Attributes:
        settings_type: Class of the settings.
        arguments: Names of the constructor's other arguments, which are attributes too.
        quantized: Whether the dense layers have int8 weights.
    """

    settings_type: ClassVar[type]
    arguments: ClassVar[tuple[str, ...]]

    def __init__(self, settings: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.quantized = False

    def quantize_dense_layers(self) -> None:
        """Give the dense layers int8 weights. Embeddings stay: they may be the last matrix too."""
        super().quantize(config=INT8_WEIGHTS, filters=lambda layer: isinstance(layer, keras.layers.Dense))
        self.quantized = True

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, and whether it is quantised, as JSON values."""
        arguments = {name: getattr(self, name) for name in self.arguments}
        return {"settings": to_dict(self.settings), **arguments, "quantized": self.quantized}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Build the model that `get_config` describes."""
        arguments = {name: config[name] for name in cls.arguments if name in config}
        model = cls(from_dict(cls.settings_type, config["settings"]), **arguments)
        if config.get("quantized"):
            model.quantize_dense_layers()
        return model
