"""The compiled transform against its defining sum, and `lower` as the transpose of `lift`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_delays.ops import fft

MIX = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
HALVES = [1, 2, 3, 4, 5, 6, 9, 10, 12, 15, 25, 30, 60, 75]


def lifted(signal, length, begin, mix=MIX):
    """Parts `[3, L / 2, C]`, in the order of the compiled transform."""
    steps, columns = signal.shape
    parts = np.full((3, length // 2, columns), np.nan, signal.dtype)
    tables = fft.tables(length, signal.dtype)
    ends = (begin, begin + steps)
    fft.lift(signal.ravel(), columns, *ends, tables, mix, parts.ravel(), columns, 0, columns)
    return parts


def order(length):
    """Which frequency of the defining sum stands where: from the spectrum of a single step."""
    impulse = np.zeros((2, 1))
    impulse[1] = 1
    _, re, im = lifted(impulse, length, 0)[:, :, 0]
    turns = -np.angle(re + 1j * im) / (2 * np.pi) * length
    return np.round((turns % length - 0.5) / 2).astype(int)


@settings(deadline=None)
@given(
    half=st.sampled_from(HALVES),
    columns=st.sampled_from([1, 2, 15, 40]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_lift_is_the_sum_that_defines_it(half, columns, seed, data):
    length = 2 * half
    steps = data.draw(st.integers(1, length))
    begin = data.draw(st.integers(0, length - steps))
    signal = np.random.default_rng(seed).normal(size=(steps, columns))
    frequencies = 2 * order(length) + 0.5
    assert sorted(frequencies) == [2 * g + 0.5 for g in range(half)]
    angle = 2 * np.pi * np.outer(frequencies, np.arange(begin, begin + steps)) / length
    expected = np.exp(-1j * angle) @ signal
    parts = lifted(signal, length, begin)
    np.testing.assert_allclose(parts[1] + 1j * parts[2], expected, atol=1e-11)
    np.testing.assert_allclose(parts[0], expected.real + expected.imag, atol=1e-11)


@settings(deadline=None)
@given(
    half=st.sampled_from(HALVES),
    columns=st.sampled_from([1, 7, 33]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_lower_is_the_transpose_of_lift(half, columns, seed, data):
    length = 2 * half
    steps = data.draw(st.integers(1, length))
    begin = data.draw(st.integers(0, length - steps))
    shared = data.draw(st.integers(0, steps))
    generator = np.random.default_rng(seed)
    signal = generator.normal(size=(steps, columns))
    parts = generator.normal(size=(3, half, columns))
    mix = generator.normal(size=(3, 2))
    back = np.ones((steps, columns))
    tables = fft.tables(length, signal.dtype)
    ends = (begin, begin + steps)
    flat = parts.ravel()
    fft.lower(flat, columns, *ends, tables, mix, shared, back.ravel(), columns, 0, columns)
    back[:shared] -= 1  # what had been there
    assert np.sum(back * signal) == pytest.approx(
        np.sum(parts * lifted(signal, length, begin, mix))
    )


def test_a_block_of_columns_does_not_depend_on_the_others():
    signal = np.random.default_rng(0).normal(size=(9, 5000)).astype(np.float32)
    whole = lifted(signal, 30, 2, MIX.astype(np.float32))
    alone = lifted(signal[:, 4990:], 30, 2, MIX.astype(np.float32))
    np.testing.assert_array_equal(whole[:, :, 4990:], alone)


def test_fast_lengths_are_even_and_the_smallest_with_small_factors():
    assert [fft.fast_length(n) for n in (1, 2, 3, 13, 15, 62, 124, 148, 1023)] == [
        *(2, 2, 4, 16, 16, 64, 128, 150, 1024)
    ]
