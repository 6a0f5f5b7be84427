"""The inner ear: the membrane against slow integration, cells against plain loops, and tones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_delays.data import cochlea
from snn_delays.data.cochlea import RATE, encode, membrane_velocity


def tone(hertz, rate=16_000, seconds=0.15):
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("hertz", [50, 300, 1000, 3000, 7000, 11_000])
def test_the_phase_is_the_integral_of_the_wave_number(hertz):
    omega = np.array([2 * np.pi * hertz])
    for place in (0.0, 0.5, 1.5, 3.0, 3.5):
        phase = cochlea._wave(omega, np.array([[place]]))[0][0, 0]
        grid = np.linspace(0, place, 50_001)[:, None]
        number = cochlea._wave(omega, grid)[1][:, 0]
        expected = 2 * number[0] / 3.0 + np.trapezoid(number, grid[:, 0])
        assert abs(phase - expected) < 1e-5 * abs(expected)


def test_the_response_is_finite_and_dies_out_beyond_its_place():
    omega = 2 * np.pi * np.array([4.0, 20, 100, 1000, 5000, 12_000])
    places = np.linspace(0, 3.5, 50)[:, None]
    response = np.abs(cochlea._response(omega, places))
    assert np.isfinite(response).all()
    peaks = response.argmax(0)
    assert (np.diff(peaks[2:]) <= 0).all()  # higher pitch, nearer to the base
    assert response[-1, 4] < 1e-6 * response[:, 4].max()


def test_tones_move_the_membrane_at_their_place():
    """Where the stiffness and the mass cancel, as far as the damping lets them."""
    for hertz in (500, 1000, 2000, 4000):
        motion = membrane_velocity(tone(hertz), 16_000).std(axis=1)
        resonance = -np.log((0.05 * (2 * np.pi * hertz) ** 2 + 3500) / 1e8) / 3.0
        assert abs(motion.argmax() / 699 * 3.5 - resonance) < 0.3


def test_the_same_sound_at_other_rates_moves_the_membrane_alike():
    slow, fast = tone(700), tone(700, 48_000)
    window = np.hanning(len(slow)), np.hanning(len(fast))
    a = membrane_velocity(slow * window[0], 16_000)
    b = membrane_velocity(fast * window[1], 48_000)
    assert a.shape == b.shape == (700, round(0.15 * RATE))
    assert np.abs(a - b).max() < 0.01 * np.abs(a).max()


def hair_cell(velocity):
    """Meddis' pools, step by step, as published; the firing probability of each step."""
    dt = 1 / RATE
    y, g, loss, r, x, a, b, h = 5.05, 2000.0, 2500.0, 6580.0, 66.3, 5.0, 300.0, 50_000.0
    k = g * a / (a + b)
    c = y * k / (loss * k + y * (loss + r))
    q, w = c * (loss + r) / k, c * r / x
    probabilities = []
    for v in velocity.astype(float):
        k = g * (v + a) / (v + a + b) if v + a > 0 else 0.0
        dq = (y * (1 - q) if q < 1 else 0) - k * q + x * w
        dc, dw = k * q - loss * c - r * c, r * c - x * w
        q, c, w = max(q + dq * dt, 0), max(c + dc * dt, 0), max(w + dw * dt, 0)
        probabilities.append(min(1, h * c * dt))
    return np.array(probabilities)


def bushy_cell(probabilities, rng):
    """40 fibres drawn one by one, each silent for 1 ms after a spike, into one integrator."""
    block = RATE // 1000
    last = np.full(40, -block)
    voltage = current = 0.0
    waiting, spikes = 0, []
    for step, p in enumerate(probabilities):
        fires = (rng.random(40) < p) & (step - last >= block)
        last[fires] = step
        spiked = voltage >= 1 and waiting <= 0
        voltage *= np.exp(-1 / RATE / 1e-3)
        if spiked:
            spikes.append(step)
            waiting, voltage = block, 0.0
        current = current * np.exp(-1 / RATE / 5e-4) + fires.sum()
        if waiting <= 0:
            voltage += current * 13e3 / 40 / RATE
        waiting -= 1
    return spikes


def test_spikes_against_cells_written_out():
    """The random numbers differ, so the counts of many channels are compared, by kind of drive."""
    steps = 1200
    t = np.arange(steps) / RATE
    for drive in (0 * t, 20 + 0 * t, 60 * np.sin(2 * np.pi * 300 * t)):
        velocity = np.tile(drive.astype(np.float32), (60, 1))
        _, units = cochlea._spike(velocity, np.random.default_rng(0))
        ours = np.bincount(units, minlength=60)
        probabilities = hair_cell(drive)
        theirs = [len(bushy_cell(probabilities, np.random.default_rng(i))) for i in range(12)]
        error = np.hypot(ours.std() / 60**0.5, np.std(theirs) / 12**0.5)
        assert abs(ours.mean() - np.mean(theirs)) < 4 * error + 0.05
    assert np.mean(theirs) > 1


@given(st.integers(0, 40), st.floats(0, 1), st.integers(0, 100))
@settings(max_examples=30)
def test_binomial_numbers(trials, p, seed):
    rng = np.random.default_rng(seed)
    drawn = np.array([cochlea._binomial(trials, p, rng) for _ in range(400)])
    assert ((drawn >= 0) & (drawn <= trials)).all()
    error = 5 * (trials * p * (1 - p) / 400) ** 0.5
    assert abs(drawn.mean() - trials * p) <= error + 1e-9 + 0.02 * trials * min(p, 1 - p)


def test_encoding_is_fixed_by_the_seed_and_sorted():
    sound = tone(900) * np.hanning(2400)
    times, units = encode(sound, 16_000, np.random.default_rng(1))
    again = encode(sound * 7, 16_000, np.random.default_rng(1))
    np.testing.assert_array_equal(times, again[0])  # the level is brought to a standard
    np.testing.assert_array_equal(units, again[1])
    assert not np.array_equal(encode(sound, 16_000, np.random.default_rng(2))[0], times)
    assert (times.dtype, units.dtype) == (np.int32, np.int16)
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert times[-1] < 150_000
    assert 300 < len(times) < 20_000
    place = np.median(units[(times > 60_000) & (times < 90_000)]) / 699 * 3.5
    assert 0.5 < place < 2.0


@pytest.mark.parametrize("gain", [1e-200, 1e200])
def test_a_level_whose_square_is_no_number_does_not_matter_either(gain):
    sound = tone(900) * np.hanning(2400)
    expected = encode(sound, 16_000, np.random.default_rng(1))
    found = encode(sound * gain, 16_000, np.random.default_rng(1))
    assert abs(len(found[0]) - len(expected[0])) < 0.02 * len(expected[0])


def test_silence_and_the_shortest_recording():
    times, _ = encode(np.zeros(800), 16_000, np.random.default_rng(0))
    assert len(times) < 200
    assert len(encode(np.ones(1), 16_000, np.random.default_rng(0))[0]) == 0


def test_recordings_are_encoded_at_the_published_level_and_in_exact_microseconds():
    sound = tone(900) * np.hanning(2400)
    loud = sound * (0.3 / np.sqrt(np.mean(sound**2)))
    steps, units = cochlea._spike(membrane_velocity(loud, 16_000), np.random.default_rng(1))
    order = np.lexsort((units, steps))
    times, found = encode(sound, 16_000, np.random.default_rng(1))
    np.testing.assert_array_equal(found, units[order])
    np.testing.assert_array_equal(times, np.rint(steps[order] / 24_000 * 1e6))


@pytest.mark.parametrize(("channel", "milliseconds"), [(300, 2.4), (690, 55.7)])
def test_the_membrane_answers_before_the_sound_as_the_authors_does(channel, milliseconds):
    click = np.zeros(RATE // 2)
    click[RATE // 4] = 1
    moved = np.abs(membrane_velocity(click, RATE)[channel])
    assert (RATE // 4 - moved.argmax()) / RATE * 1000 == pytest.approx(milliseconds, abs=0.1)


def test_the_edges_of_a_recording_do_not_touch_each_other():
    sound = np.zeros(RATE // 4)
    sound[[40, -40]] = 1
    padded = membrane_velocity(np.concatenate([sound, np.zeros(RATE // 4)]), RATE)[:, : len(sound)]
    alone = membrane_velocity(sound, RATE)
    for place in range(0, 600, 50):
        largest = np.abs(padded[place]).max()
        assert np.abs(alone[place] - padded[place]).max() < 0.02 * largest


def test_a_loud_beginning_is_not_heard_at_the_end():
    """Low places answer long before a sound: to its first moment, at the end of the padding."""
    t = np.arange(RATE // 5) / RATE  # just short of a multiple to which recordings are padded
    sound = np.where(t < 0.1, np.cos(2 * np.pi * 70 * t) + np.cos(2 * np.pi * 140 * t), 0)
    moved = np.abs(membrane_velocity(sound, RATE, slice(560, 700)))
    assert moved[:, -RATE // 20 :].max() < 0.002 * moved.max()


def test_some_places_move_as_they_do_among_all():
    sound = np.random.default_rng(0).standard_normal(2400)
    some = membrane_velocity(sound, 16_000, slice(128, 192))
    np.testing.assert_allclose(some, membrane_velocity(sound, 16_000)[128:192], rtol=1e-5)


def test_every_channel_begins_with_forty_rested_fibres(monkeypatch):
    ready = []

    def all_fire(trials, p, rng):
        ready.append(trials)
        return trials

    monkeypatch.setattr(cochlea, "_binomial", all_fire)
    drive = np.zeros((2, 60), np.float32)
    cochlea._spike.py_func(drive, np.random.default_rng(0))
    assert ready[60] == ready[0] == 40
    assert set(ready) == {0, 40}
