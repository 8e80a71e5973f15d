import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from tensorflow.core.framework import tensor_pb2

from serving import protocol
from serving.generate_protocol import file_descriptor_set
from serving.tensors import fill_proto, read_proto

TensorProto = protocol.message("tensorflow.TensorProto")
NUMBERS = [
    np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64,
    np.uint8, np.uint16, np.uint32, np.uint64, np.bool_, np.complex64, np.complex128,
]  # fmt: skip


def proto_of(array, **options):
    proto = TensorProto()
    fill_proto(proto, array, **options)
    return proto


def test_the_generated_messages_are_current():
    assert protocol.read_descriptors() == file_descriptor_set(), "run: python -m serving.generate_protocol"


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(NUMBERS), st.booleans())
def test_arrays_are_read_back_and_tensorflow_reads_the_same(data, dtype, as_values):
    array = data.draw(arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, min_side=0)))
    proto = proto_of(array, as_values=as_values)
    np.testing.assert_array_equal(read_proto(proto), array)
    theirs = tensor_pb2.TensorProto.FromString(proto.SerializeToString())
    np.testing.assert_array_equal(tf.make_ndarray(theirs), array)
    np.testing.assert_array_equal(read_proto(tf.make_tensor_proto(array)), array)


def test_text_and_bytes_become_strings():
    assert read_proto(proto_of("ä")).item() == "ä".encode()
    assert read_proto(proto_of([[b"\0", b""]])).tolist() == [[b"\0", b""]]


def test_bfloat16_is_read_as_float32():
    values = tf.constant([1.5, -2.0], tf.bfloat16)
    assert read_proto(tf.make_tensor_proto(values)).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("values", [[1, 2], [5], []])
def test_a_short_list_repeats_its_last_value_as_tensorflow_does(values):
    proto = TensorProto(dtype=3, tensor_shape={"dim": [{"size": 4}]}, int_val=values)
    theirs = tf.make_ndarray(tensor_pb2.TensorProto.FromString(proto.SerializeToString()))
    assert read_proto(proto).tolist() == theirs.tolist()


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"dtype": 1, "float_val": [7], "tensor_shape": {"unknown_rank": True}}, 7),
        ({"dtype": 1, "float_val": [1, 2], "tensor_shape": {"dim": [{"size": 1}]}}, [1]),
        ({"dtype": 1, "int_val": [9], "tensor_shape": {"dim": [{"size": 2}]}}, [0, 0]),
        ({"dtype": 7, "tensor_shape": {"dim": [{"size": 1}]}}, [b""]),
    ],
)
def test_lists_that_do_not_fit_the_shape_are_read_as_tf_serving_reads_them(fields, values):
    assert read_proto(TensorProto(**fields)).tolist() == values


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": 99}, "unknown data type 99"),
        ({"dtype": 1, "tensor_shape": {"dim": [{"size": -1}]}}, "impossible shape"),
        (
            {"dtype": 1, "tensor_shape": {"dim": [{"size": 2}]}, "tensor_content": b"1234"},
            "4 bytes for 2 values",
        ),
        ({"dtype": 1, "tensor_shape": {"dim": [{"size": 2**40}]}, "float_val": [1]}, "repeated"),
        ({"dtype": 7, "tensor_shape": {"dim": [{"size": 1}]}, "tensor_content": b"x"}, "strings"),
    ],
)
def test_invalid_tensors_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        read_proto(TensorProto(**fields))


def test_a_dtype_that_tensors_do_not_have_is_refused():
    with pytest.raises(ValueError, match="tensors can't hold datetime64"):
        proto_of(np.array(["2020"], "datetime64[D]"))
