"""Small requests that ask for much: refused with the limit's name, in the graph and before a tensor is decoded."""

import io
import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from serving import protocol
from serving.server.configs import Batching
from serving.server.errors import StatusError
from serving.server.servable import Servable, read_inputs

HUGE = [21_399, 2**31, 2**62]


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that ends after its header: what is refused with the limit's text was not decoded."""
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
def mnist(exported):
    servable = Servable("mnist", 1, exported)
    yield servable
    servable.close()


@pytest.fixture(scope="module", params=["characters", pytest.param("lstm", marks=pytest.mark.slow)])
def lm(request, text_exports):
    servable = Servable("lm", 1, text_exports(request.param)[1])
    yield servable
    servable.close()


def ask(servable: Servable, signature: str, **inputs) -> dict[str, np.ndarray]:
    """Run the graph itself, past the embedded server's own check."""
    definition = servable.signatures[signature]
    arrays = [np.asarray(inputs[alias]) for alias in definition.inputs]
    return dict(
        zip(definition.all_outputs, servable.run(signature, arrays, definition.all_outputs), strict=True)
    )


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
    ("files", "said"),
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
        ([picture("PNG", 2, 2)] * 513, "at most 512 rows. Received:. .513"),
    ],
)
def test_image_files_that_claim_too_much_are_refused_by_their_headers(mnist, files, said):
    with pytest.raises(StatusError, match=f"(?s){said}") as refused:
        ask(mnist, "encoded", image_bytes=strings(*files))
    assert refused.value.code.name == "INVALID_ARGUMENT"


def test_image_files_of_many_sizes_and_both_kinds_are_answered(mnist):
    files = [
        picture("PNG", 28, 28),
        picture("JPEG", 1000, 30),
        picture("PNG", 1, 3000),
        picture("JPEG", 5, 5),
    ]
    labels = ask(mnist, "encoded", image_bytes=strings(*files))["label"]
    assert labels.tolist() == [ask(mnist, "encoded", image_bytes=strings(file))["label"][0] for file in files]


def test_a_batch_of_images_has_512_rows_at_most(mnist):
    assert ask(mnist, "serving_default", image=np.zeros((512, 28, 28, 1), np.float32))["label"].shape == (
        512,
    )
    with pytest.raises(StatusError, match=r"(?s)at most 512 rows. Received:. .513"):
        ask(mnist, "serving_default", image=np.zeros((513, 28, 28, 1), np.float32))


@pytest.mark.parametrize(
    ("prompts", "count", "said"),
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
def test_generation_that_asks_for_too_much_is_refused(lm, prompts, count, said):
    with pytest.raises(StatusError, match=f"(?s){said}"):
        ask(lm, "generate", **generation(strings(*prompts), count))


def test_texts_to_score_are_limited_in_number_and_in_bytes(lm):
    for signature, name in (("score", "text"), ("serving_default", "prompt")):
        with pytest.raises(StatusError, match=r"(?s)at most 64 rows. Received:. .20000"):
            ask(lm, signature, **{name: strings(*[b"T"] * 20_000)})
        with pytest.raises(StatusError, match=r"(?s)at most 131072 bytes together"):
            ask(lm, signature, **{name: strings(*[b"T" * 50_000] * 3)})


def test_a_long_text_does_not_lengthen_its_neighbours(lm, text_exports):
    texts = [b"The " * 200, b"A", *[b"See section"] * 14]
    together = ask(lm, "score", text=strings(*texts))
    alone = [ask(lm, "score", text=strings(text))["log_likelihood"][0] for text in texts]
    np.testing.assert_allclose(together["log_likelihood"], alone, rtol=1e-6)


@pytest.mark.slow
def test_a_recurrent_model_reads_as_many_tokens_as_its_memory_allows(text_exports):
    servable = Servable("lm", 1, text_exports("lstm")[1])
    with pytest.raises(StatusError, match=r"(?s)at most 16384. Received:. .2 8193"):
        ask(servable, "generate", **generation(strings(b"T", b"T" * 8193), 1))
    servable.close()


@pytest.mark.parametrize("rows", HUGE)
@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], []])
def test_a_list_shorter_than_its_shape_is_refused_before_it_is_repeated(mnist, rows, values):
    sizes = [{"size": size} for size in (rows, 28, 28, 1)]
    tensor = {"dtype": 1, "tensor_shape": {"dim": sizes}, "float_val": values}
    request = protocol.PredictRequest(inputs={"image": tensor})
    tracemalloc.start()
    try:
        with pytest.raises(StatusError, match=f"at most 512 rows. Received: {rows} in input image"):
            read_inputs(mnist.signatures["serving_default"], request.inputs)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_batch_put_together_stays_within_the_limit():
    batching = Batching(max_batch_size=1000, allowed_batch_sizes=(8, 100, 1000))
    assert batching.within(512) == Batching(max_batch_size=512, allowed_batch_sizes=(8, 100))
    assert batching.within(None) == batching.within(1000) == batching


def test_the_limits_are_recorded_in_the_export(exported):
    recipe = json.loads((exported / "assets.extra" / "recipe.json").read_text())
    assert recipe["limits"] == {"rows": 512, "pixels_per_image": 2**24, "pixels": 2**27}
