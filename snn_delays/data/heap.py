"""The lists of variable length in an HDF5 file, checked before libhdf5 follows their pointers.

Damaged pointers can make the library ask for any amount of memory, or read forever. The format is
that of the HDF5 File Format Specification: each list is a descriptor (length, address of a global
heap collection, index in it); a collection holds objects one after another.
"""

from __future__ import annotations

import os
from typing import IO

import h5py
import numpy as np
from numpy.typing import NDArray

from snn_delays.errors import DataError

_DESCRIPTOR = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
_COLLECTION_HEADER = 16  # "GCOL", version, 3 reserved bytes, size
_OBJECT_HEADER = 16  # index, references, 4 reserved bytes, size
_REMEDY = "The file is damaged: fetch it again."


def check_ragged(file: h5py.File, column: h5py.Dataset, where: str) -> None:
    """Follow every pointer of a one-dimensional data set of lists, without reading the lists.

    Not checked are data sets that are compressed, and files with a user block or with unusual
    address sizes.

    Args:
        where: names the data set in messages.

    Raises:
        DataError: a list points outside the file, or at a heap that does not hold it.
    """
    # The encoded type: two bytes, then class and version (9: lists), then the kind of list.
    if column.id.get_type().encode()[3] & 0x0F != 0:
        raise DataError(f"{where} holds lists of an unknown kind", remedy=_REMEDY)
    if file.userblock_size or tuple(file.id.get_create_plist().get_sizes()) != (8, 8):
        return
    with open(file.filename, "rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        lists = _descriptors(column, raw, size)
        if lists is None:
            return
        item = h5py.check_vlen_dtype(column.dtype).itemsize
        used = np.flatnonzero(lists["length"])
        heaps: dict[int, dict[int, int]] = {}
        for clip in used:
            length, address, index = (int(value) for value in lists[clip])
            if address not in heaps:
                heaps[address] = _objects(raw, address, size)
            if heaps[address].get(index, -1) < length * item:
                raise DataError(
                    f"Clip {clip} of {where} points at nothing that holds its {length} values",
                    remedy=_REMEDY,
                )


def _descriptors(column: h5py.Dataset, raw: IO[bytes], size: int) -> NDArray[np.void] | None:
    """The descriptor of each list, or None where they are not plain bytes in the file."""
    plist = column.id.get_create_plist()
    if plist.get_nfilters() or column.dtype.itemsize == 0:
        return None
    count = len(column)
    if plist.get_layout() == h5py.h5d.CONTIGUOUS:
        places = [(0, column.id.get_offset(), count)]
    elif plist.get_layout() == h5py.h5d.CHUNKED:
        chunks = (column.id.get_chunk_info(i) for i in range(column.id.get_num_chunks()))
        places = [(chunk.chunk_offset[0], chunk.byte_offset, column.chunks[0]) for chunk in chunks]
    else:
        return None
    lists = np.zeros(count, _DESCRIPTOR)
    for start, offset, length in places:
        length = min(length, count - start)
        if offset is None or length <= 0:
            continue  # never written: empty lists
        raw.seek(min(offset, size))
        found = np.frombuffer(raw.read(length * _DESCRIPTOR.itemsize), np.uint8)
        whole = len(found) // _DESCRIPTOR.itemsize
        lists[start : start + whole] = found[: whole * _DESCRIPTOR.itemsize].view(_DESCRIPTOR)
    return lists


def _objects(raw: IO[bytes], place: int, size: int) -> dict[int, int]:
    """The size of each object in the collection at `place`, by index; none in a damaged one."""
    if place + _COLLECTION_HEADER > size:
        return {}
    raw.seek(place)
    header = raw.read(_COLLECTION_HEADER)
    length = int.from_bytes(header[8:16], "little")
    if header[:5] != b"GCOL\x01" or length > size - place:
        return {}
    body = raw.read(length - _COLLECTION_HEADER) if length > _COLLECTION_HEADER else b""
    objects: dict[int, int] = {}
    at = 0
    while at + _OBJECT_HEADER <= len(body):
        index = int.from_bytes(body[at : at + 2], "little")
        taken = int.from_bytes(body[at + 8 : at + 16], "little")
        if index == 0:  # the rest is free; libhdf5 would never pass one of size 0
            return objects if at + taken == len(body) else {}
        at += _OBJECT_HEADER + -(-taken // 8) * 8
        if at > len(body) or index in objects:
            return {}
        objects[index] = taken
    return objects
