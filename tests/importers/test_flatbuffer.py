import struct

import numpy as np
import pytest

from atrous.errors import InputError
from atrous.importers.flatbuffer import read_root
from importers.files import write_file


def test_every_kind_of_field() -> None:
    inner = {0: struct.pack("<h", -5)}
    fields = {
        0: struct.pack("<i", -7),
        2: struct.pack("<f", 0.5),
        3: np.array([1, -2, 3], "<i8"),
        4: {1: struct.pack("<B", 200)},
        5: [inner, {}, inner],
    }
    root = read_root(write_file(fields, b"TEST"), b"TEST", "here")
    assert root.number(0, "i") == -7
    assert root.number(2, "f") == 0.5
    assert root.numbers(3, "i8").tolist() == [1, -2, 3]
    assert root.table(4).number(1, "B") == 200
    assert [table.number(0, "h", 9) for table in root.tables(5, 3)] == [-5, 9, -5]


def test_what_is_absent_has_its_default() -> None:
    root = read_root(write_file({1: struct.pack("<i", 1)}, b"TEST"), b"TEST", "here")
    for field in (0, 7):  # in the vtable as 0; beyond its end
        assert root.number(field, "i", 3) == 3
        assert root.numbers(field, "f4").tolist() == []
        assert root.table(field) is None
        assert root.tables(field, 1) == []


def test_another_kind_of_file() -> None:
    with pytest.raises(InputError, match="here: not a FlatBuffers file of kind TFL3"):
        read_root(b"PK\3\4 and so on", b"TFL3", "here")


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0\0TEST", b"\xff\xff\xff\xffTEST", b"\x08\0\0\0TEST\xff\xff\xff\x7f"]
)
def test_offsets_out_of_the_file(data: bytes) -> None:
    with pytest.raises(InputError, match="here: "):
        read_root(data, b"TEST", "here").number(0, "i")


def test_lists_longer_than_the_file_or_the_limit() -> None:
    data = write_file({0: np.zeros(4, "<i4")}, b"TEST")
    length = data.index(struct.pack("<I", 4), 12)
    longer = data[:length] + struct.pack("<I", 2**31) + data[length + 4 :]
    with pytest.raises(InputError, match="truncated or damaged"):
        read_root(longer, b"TEST", "here").numbers(0, "i4")
    with pytest.raises(InputError, match="a list of 3, where 2 is much"):
        read_root(write_file({0: [{}, {}, {}]}, b"TEST"), b"TEST", "here").tables(0, 2)
