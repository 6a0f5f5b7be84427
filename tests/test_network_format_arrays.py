"""Of nested lists the number or the row that is wrong is named."""

from __future__ import annotations

import pytest
from sample_networks import document

from snn_delays.errors import NetworkFormatError
from snn_delays.network_format import parse


@pytest.mark.parametrize(
    ("field", "fine", "huge"),
    [("delays", 2**63 - 1, 2**64 + 1), ("weights", 10**300, -(10**400))],
    ids=["delays", "weights"],
)
def test_of_large_numbers_the_one_that_is_too_large_is_named(field, fine, huge) -> None:
    doc = document()
    doc["layers"][0][field][0][0][0] = fine
    doc["layers"][0][field][0][1][0] = huge
    message = rf"`layers\[0\]\.{field}\[0\]\[1\]\[0\]` must .* got an integer of more than 64 bits"
    with pytest.raises(NetworkFormatError, match=message):
        parse(doc)


def test_a_row_of_delays_per_input_is_named_where_it_is_too_long() -> None:
    doc = document()
    doc["layers"][0] |= {"granularity": "axonal", "delays": [[[0], [1], [2, 2], [3], [4]]]}
    message = r"`layers\[0\]\.delays\[0\]\[2\]` must be a list of 1; got a list of 2"
    with pytest.raises(NetworkFormatError, match=message):
        parse(doc)
