"""What stands for the names of torch and numpy makes data of them, whatever they are told."""

from __future__ import annotations

import pytest

from flarekd.nnunet.admitted import ADMITTED, StoredTensor


def test_nothing_admitted_is_of_torch_numpy_or_python():
    """The functions and classes are all this package's own; the rest is inert."""
    own = [value for value in ADMITTED.values() if callable(value)]
    assert {value.__module__ for value in own} == {"flarekd.nnunet.admitted"}
    inert = {type(value).__name__ for value in ADMITTED.values() if not callable(value)}
    assert inert == {"str", "dtype"}


def test_an_array_is_what_its_dtype_says():
    dtype = ADMITTED["numpy.dtype"]("i2", False, True)
    dtype.__setstate__((3, ">", None, None, None, -1, -1, 0))
    array = ADMITTED["numpy.core.multiarray._reconstruct"]("numpy.ndarray", (0,), b"b")
    array.__setstate__((1, (2, 2), dtype, True, b"\x00\x01\x00\x02\x00\x03\x01\x00"))
    assert array == [[1, 3], [2, 256]]
    assert ADMITTED["numpy.core.multiarray.scalar"](dtype, b"\x01\x01") == 257


@pytest.mark.parametrize("name", ["O", "O8", "V8", "U4", "S3", "M8", "object", "c8", "f16"])
def test_a_dtype_that_is_no_number_is_refused(name):
    with pytest.raises(ValueError, match=f"an array of '{name}'"):
        ADMITTED["numpy.dtype"](name, False, True)


def test_a_tensor_is_described_not_read():
    storage = ("7", ADMITTED["torch.HalfStorage"], 6)
    made = ADMITTED["torch._utils._rebuild_tensor_v2"](storage, 1, (2, 2), (2, 1), False, {})
    assert made == StoredTensor("7", ADMITTED["torch.HalfStorage"], 6, 1, (2, 2), (2, 1))


def test_bytes_are_made_by_latin1_alone():
    assert ADMITTED["_codecs.encode"]("\xff\x00", "latin1") == b"\xff\x00"
    with pytest.raises(ValueError, match="bytes in 'rot13'"):
        ADMITTED["_codecs.encode"]("x", "rot13")
