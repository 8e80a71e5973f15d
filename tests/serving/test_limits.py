"""Small requests with a large cost: refused with the limit, in the graph and before a tensor is decoded."""

import io
import struct
import tracemalloc
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from recipes.config import RecurrentModel, TransformerModel
from recipes.data.tokenizers import ByteTokenizer
from recipes.models.recurrent import RecurrentLanguageModel
from recipes.models.transformer import TransformerLanguageModel
from serving import protocol
from serving.server.configs import Batching
from serving.server.errors import StatusError
from serving.server.inputs import read_protos
from serving.signatures import image, text
from serving.tensors import Signature, TensorSpec

HUGE = [21_399, 2**31, 2**62]


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that ends after its header: if the error is that of the limit, it was not decoded."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def picture(kind: str, width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, kind)
    return file.getvalue()


def jpeg_that_claims(width: int, height: int) -> bytes:
    content = picture("JPEG", 8, 8)
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


@pytest.fixture(scope="module")
def mnist():
    """The signatures of an untrained classifier."""
    layers = [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    return image.image_classifier(keras.Sequential(layers))


@pytest.fixture(scope="module", params=["transformer", "lstm"])
def lm(request):
    """The signatures of an untrained language model, of each kind of memory."""
    tokenizer = ByteTokenizer()
    if request.param == "lstm":
        settings = RecurrentModel(units=8, embedding=8, layers=1)
        return text.language_model(RecurrentLanguageModel(settings, 256, 24), tokenizer)
    settings = TransformerModel(width=16, heads=2, layers=1, feed_forward=16)
    return text.language_model(TransformerLanguageModel(settings, 256, 24), tokenizer)


def ask(module: tf.Module, signature: str, **inputs) -> dict[str, np.ndarray]:
    """Run the graph itself, past the embedded server's own check."""
    answers = getattr(module, signature)(**{name: tf.constant(values) for name, values in inputs.items()})
    return {name: answer.numpy() for name, answer in answers.items()}


def strings(*values: bytes) -> np.ndarray:
    return np.array(values, np.object_)


def generation(prompts: np.ndarray, count: int) -> dict[str, np.ndarray]:
    rows = len(prompts)
    return {
        "prompt": prompts,
        "max_new_tokens": np.full(rows, count, np.int32),
        "temperature": np.zeros(rows, np.float32),
        "top_k": np.zeros(rows, np.int32),
        "top_p": np.ones(rows, np.float32),
        "seed": np.zeros(rows, np.int64),
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([png_header(5000, 5000)], "at most 16777216 pixels. Received:. .25000000"),
        ([png_header(2**32 - 1, 2**32 - 1)], "at most 16777216 pixels"),
        ([png_header(1, 1), png_header(2**31, 1)], "at most 16777216 pixels"),
        ([jpeg_that_claims(65_000, 65_000)], "at most 16777216 pixels. Received:. .4225000000"),
        ([png_header(4096, 4096)] * 9, "at most 134217728 pixels together. Received:. .150994944"),
        ([png_header(4096, 4096)] * 8 + [jpeg_that_claims(8, 8)], "together. Received:. .134217792"),
        ([b"GIF89a" + bytes(20)], "PNG or JPEG"),
        ([b""], "PNG or JPEG"),
        ([png_header(1, 1)[:12] + b"abCd" + png_header(5000, 5000)], "PNG or JPEG"),
        ([picture("PNG", 2, 2)] * 1025, "at most 1024 rows. Received:. .1025"),
    ],
)
def test_image_files_that_claim_too_much_are_refused_by_their_headers(mnist, files, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s){message}"):
        ask(mnist, "encoded", image_bytes=strings(*files))


def test_png_and_jpeg_files_of_many_sizes_are_accepted(mnist):
    files = [
        picture("PNG", 28, 28),
        picture("JPEG", 1000, 30),
        picture("PNG", 1, 3000),
        picture("JPEG", 5, 5),
    ]
    labels = ask(mnist, "encoded", image_bytes=strings(*files))["label"]
    assert labels.tolist() == [ask(mnist, "encoded", image_bytes=strings(file))["label"][0] for file in files]


def test_a_batch_of_images_has_1024_rows_at_most(mnist):
    assert ask(mnist, "serving_default", image=np.zeros((1024, 28, 28, 1), np.float32))["label"].shape == (
        1024,
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)at most 1024 rows. Received:. .1025"):
        ask(mnist, "serving_default", image=np.zeros((1025, 28, 28, 1), np.float32))


@pytest.mark.parametrize(
    ("prompts", "count", "message"),
    [
        ([b"T"] * 65, 1, "at most 64 rows. Received:. .65"),
        ([b"T"] * 64, 1025, "rows x max_new_tokens must be at most 65536. Received:. .64. .1025"),
        ([b"T"] * 17, 4096, "must be at most 65536. Received:. .17. .4096"),
        ([b"T"], 4097, "max_new_tokens must be 1 to 4096"),
        ([b"T"] * 64, 2**31 - 1, "max_new_tokens must be 1 to 4096"),
        ([b"T"], -(2**31), "max_new_tokens must be 1 to 4096"),
        ([], 1, "the batch is empty"),
        ([b"T" * 50_000] * 3, 1, "at most 131072 bytes together. Received:. .150000"),
    ],
)
def test_generation_that_asks_for_too_much_is_refused(lm, prompts, count, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s){message}"):
        ask(lm, "generate", **generation(strings(*prompts), count))


def test_texts_to_score_are_limited_in_number_and_in_bytes(lm):
    for signature, name in (("score", "text"), ("serving_default", "prompt")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)at most 64 rows. Received:. .20000"):
            ask(lm, signature, **{name: strings(*[b"T"] * 20_000)})
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)at most 131072 bytes together"):
            ask(lm, signature, **{name: strings(*[b"T" * 50_000] * 3)})


def test_a_long_text_does_not_change_the_scores_of_others(lm):
    texts = [b"The " * 200, b"A", *[b"See section"] * 14]
    together = ask(lm, "score", text=strings(*texts))
    alone = [ask(lm, "score", text=strings(text))["log_likelihood"][0] for text in texts]
    np.testing.assert_allclose(together["log_likelihood"], alone, rtol=1e-5)


def test_a_recurrent_model_reads_as_many_tokens_as_its_memory_allows(lm, request):
    prompts = strings(b"T", b"T" * 8193)
    if "transformer" in request.node.name:  # it keeps a window of them
        assert ask(lm, "generate", **generation(prompts, 1))["text"][1].startswith(b"T" * 8193)
        return
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)at most 16384. Received:. .2 8193"):
        ask(lm, "generate", **generation(prompts, 1))


@pytest.mark.parametrize("rows", HUGE)
@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], []])
def test_a_list_shorter_than_its_shape_is_refused_before_it_is_repeated(rows, values):
    sizes = [{"size": size} for size in (rows, 28, 28, 1)]
    tensor = {"dtype": 1, "tensor_shape": {"dim": sizes}, "float_val": values}
    request = protocol.PredictRequest(inputs={"image": tensor})
    signature = Signature("", {"image": TensorSpec(1, (-1, 28, 28, 1), "image")}, {})
    tracemalloc.start()
    try:
        with pytest.raises(StatusError, match=f"at most 512 rows. Received: {rows} in input image"):
            read_protos(signature, request.inputs, max_rows=512)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_batches_stay_within_the_limit_of_rows():
    batching = Batching(max_batch_size=1000, allowed_batch_sizes=(8, 100, 1000))
    assert batching.within(512) == Batching(max_batch_size=512, allowed_batch_sizes=(8, 100))
    assert batching.within(None) == batching.within(1000) == batching
