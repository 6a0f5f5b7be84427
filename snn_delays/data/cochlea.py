r"""A model of the inner ear: from a recording to the spikes of 700 channels, as in SHD and SSC.

Written from the equations and constants of Cramer et al. (2020, doi:10.1109/TNNLS.2020.3044364):

1. *Basilar membrane*, a travelling wave in shallow water (Sieroka, Dosch, Rupp, 2006). At place `x`
   (cm) the membrane has, at angular frequency `w`, the impedance
   `xi = C0 exp(-alpha x) - a - m w^2 - i w R0 exp(-alpha x / 2)`, with `R0 = delta sqrt(C0 m)`. The
   wave number is `g = w sqrt(rho / (h xi))`, the phase `G(x) = 2 g(0) / alpha + int_0^x g`, the
   pressure `p = sqrt(G / g) H0(G)`, and the velocity `2 w / xi * p(x) / p(0) * Z(w)`.
2. *Hair cells*, with three pools of transmitter (Meddis, 1986): their cleft sets the probability
   with which each of 40 fibres fires.
3. *Bushy cells*: one a channel, a leaky integrator of its 40 fibres that spikes at 1.

Differs from the authors' program: the membrane is computed at 24 kHz whatever the recording's rate
(frequencies above 12 kHz, which hardly move it, are left out, as is the mean); recordings are
padded with silence, so that a wave that leaves one edge does not enter at the other; the number of
fibres that fire is drawn at once, a binomial of those that are ready; recordings are not
tapered (the published program lays a Hann window over the whole of each).

The mean of a recording counts in its level, as in that program: one with an offset gets fewer
spikes than without it.

As in that program, and so in SHD and SSC, `- i w R0` meets an inverse transform for which it has
the other sign: the membrane answers before the sound. A click moves channel 300 most 2.4 ms, and
channel 690 56 ms, before it comes; what would move before a recording begins is cut off.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import special

from snn_delays.system.compiled import compiled

CHANNELS = 700
RATE = 24_000  # Hz, of the membrane and all after it
_RMS = 0.3  # recordings are brought to this level
_QUANTUM = RATE // 4  # recordings are padded to a multiple of this; so few transfers are needed
_SILENCE = RATE // 4  # at least so much of it after each recording; low places ring for long
_PLACES = 64  # computed at a time, which bounds the memory

# The membrane, in centimetres, grams and seconds
_LENGTH, _ALPHA, _STIFFNESS, _OFFSET = 3.5, 3.0, 1e8, 3500.0
_MASS, _DAMPING, _HEIGHT, _DENSITY = 0.05, 0.15, 0.1, 1.0
_RESISTANCE = _DAMPING * np.sqrt(_STIFFNESS * _MASS)

# Hair cells, rates per second
_FACTORY, _LOSS, _REUPTAKE, _REPROCESS = 5.05, 2500.0, 6580.0, 66.3
_RELEASE, _HALF_A, _HALF_B, _FIRING = 2000.0, 5.0, 300.0, 50_000.0

# Fibres and bushy cells, seconds
_FIBRES, _REFRACTORY, _TAU_MEMBRANE, _TAU_SYNAPSE = 40, 1e-3, 1e-3, 5e-4
_WEIGHT = 13e3 / _FIBRES


def encode(
    samples: NDArray[np.float64], rate: int, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """The spikes of a recording.

    Args:
        samples: `[samples]`, one channel; its level does not matter, unless it is silence.
        rate: sampling rate in Hz.
        rng: of the fibres; the same state gives the same spikes.

    Returns:
        Times in microseconds, sorted, and channels, 0 (highest pitch) to 699.
    """
    peak = np.abs(samples).max()
    if peak > 0 and not 1e-100 < peak < 1e100:  # their squares are no numbers
        samples = samples / peak
    level = np.sqrt(np.mean(samples**2))
    scaled = samples * (_RMS / level) if level > 0 else samples
    found = []
    for first in range(0, CHANNELS, _PLACES):
        places = slice(first, first + _PLACES)
        steps, units = _spike(membrane_velocity(scaled, rate, places), rng)
        found.append((steps, units + first))
    steps, units = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((units, steps))
    times_us = np.rint(steps[order] * (1e6 / RATE)).astype(np.int32)
    return times_us, units[order].astype(np.int16)


def membrane_velocity(
    samples: NDArray[np.float64], rate: int, places: slice = slice(None)
) -> NDArray[np.float32]:
    """How fast the membrane moves at 700 places, or some of them, sampled at 24 kHz.

    Shape:
        `[samples] -> float32 [700, round(samples / rate * 24000)]`.
    """
    steps, padded = round(len(samples) * RATE / rate), padded_steps(len(samples), rate)
    taken = round(padded * rate / RATE)  # recorded samples in the padded duration
    spectrum = scipy.fft.rfft(samples, taken)[: padded // 2 + 1]
    spectrum *= RATE / rate  # the inverse transform has another length
    transfer = _transfer(padded)[places, : len(spectrum)]
    moved = transfer * spectrum.astype(np.complex64)
    return scipy.fft.irfft(moved, padded, axis=1)[:, :steps]


def padded_steps(samples: int, rate: int) -> int:
    """The steps of 24 kHz for which a recording is computed, silence included."""
    return -(-(round(samples * RATE / rate) + _SILENCE) // _QUANTUM) * _QUANTUM


def prepare(padded: int) -> None:
    """Compute what all recordings of so many padded steps share, so that threads need not."""
    _transfer(padded)


@lru_cache(maxsize=1)
def _transfer(padded: int) -> NDArray[np.complex64]:
    """Velocity per unit of sound at each place and frequency, `[700, padded // 2 + 1]`."""
    omega = 2 * np.pi * scipy.fft.rfftfreq(padded, 1 / RATE)
    place = np.linspace(0, _LENGTH, CHANNELS)[:, None]
    transfer = np.zeros((CHANNELS, len(omega)), np.complex64)
    for start in range(1, len(omega), 512):  # bounds the memory; the mean, at 0, moves nothing
        block = slice(start, start + 512)
        transfer[:, block] = _response(omega[block], place)
    transfer.flags.writeable = False
    return transfer


def _response(omega: NDArray[np.float64], place: NDArray[np.float64]) -> NDArray[np.complex128]:
    """The velocity at each place, `[places, 1]`, for sound of each angular frequency."""
    phase, number, impedance = _wave(omega, place)
    first, number0, _ = _wave(omega, np.zeros((1, 1)))
    # hankel1e leaves out exp(i G), which is put back in the ratio, where it cannot overflow.
    growth = np.sqrt(phase / number * number0 / first)
    ratio = growth * special.hankel1e(0, phase) / special.hankel1e(0, first)
    ratio *= np.exp(1j * (phase - first))
    u = 2 * omega / _ALPHA * np.sqrt(2 / (_HEIGHT * _STIFFNESS))
    entrance = (
        1j * np.sqrt(2 * _STIFFNESS / _HEIGHT) * special.hankel2(0, u) / special.hankel2(1, u)
    )
    return 2 * omega / impedance * ratio * entrance


def _wave(
    omega: NDArray[np.float64], place: NDArray[np.float64]
) -> tuple[NDArray[np.complex128], NDArray[np.complex128], NDArray[np.complex128]]:
    """Phase `G`, wave number `g` and impedance `xi`, each `[places, frequencies]`.

    With `u = exp(alpha x / 2)` the integral of `g` is that of an arcsine.
    """
    u = np.exp(_ALPHA * place / 2)
    inertia = _OFFSET + _MASS * omega**2
    impedance = _STIFFNESS / u**2 - inertia - 1j * omega * _RESISTANCE / u
    number = omega * np.sqrt(_DENSITY / (_HEIGHT * impedance))

    def arcsine(v: NDArray[np.float64]) -> NDArray[np.complex128]:
        width = np.sqrt(4 * inertia * _STIFFNESS - (omega * _RESISTANCE) ** 2)
        return np.arcsin((2 * inertia * v + 1j * omega * _RESISTANCE) / width)

    start = np.ones((1, 1))
    at_zero = _STIFFNESS - inertia - 1j * omega * _RESISTANCE
    first = 2 / _ALPHA * omega * np.sqrt(_DENSITY / (_HEIGHT * at_zero))
    factor = 2 * omega / _ALPHA * np.sqrt(_DENSITY / (_HEIGHT * inertia))
    return first + factor * (arcsine(u) - arcsine(start)), number, impedance


@compiled
def _spike(velocity, rng):
    """The bushy cells' spikes of a membrane moving like this: steps and channels, by channel."""
    dt = 1.0 / RATE
    channels, length = velocity.shape
    block = round(_REFRACTORY * RATE)
    decay_membrane, decay_synapse = np.exp(-dt / _TAU_MEMBRANE), np.exp(-dt / _TAU_SYNAPSE)
    steps = np.empty(channels * (length // block + 1), np.int64)
    units = np.empty_like(steps)
    count = 0
    recent = np.zeros(block, np.int64)  # fibres that fired, by step modulo the refractory time
    release = _RELEASE * _HALF_A / (_HALF_A + _HALF_B)
    cleft0 = _FACTORY * release / (_LOSS * release + _FACTORY * (_LOSS + _REUPTAKE))
    for channel in range(channels):
        cleft = cleft0  # all three pools start at rest
        pool = cleft * (_LOSS + _REUPTAKE) / release
        store = cleft * _REUPTAKE / _REPROCESS
        recent[:] = 0
        tired = 0
        voltage = current = 0.0
        waiting = 0
        for step in range(length):
            drive = velocity[channel, step] + _HALF_A
            rate = _RELEASE * drive / (drive + _HALF_B) if drive > 0 else 0.0
            made = _FACTORY * (1 - pool) if pool < 1 else 0.0
            out, lost, back, again = (
                rate * pool,
                _LOSS * cleft,
                _REUPTAKE * cleft,
                _REPROCESS * store,
            )
            pool = max(0.0, pool + dt * (made - out + again))
            cleft = max(0.0, cleft + dt * (out - lost - back))
            store = max(0.0, store + dt * (back - again))

            tired -= recent[step % block]  # the fibres of one refractory time ago
            fired = _binomial(_FIBRES - tired, min(1.0, _FIRING * dt * cleft), rng)
            recent[step % block] = fired
            tired += fired

            spiked = voltage >= 1.0 and waiting <= 0
            voltage *= decay_membrane
            if spiked:
                steps[count], units[count] = step, channel
                count += 1
                waiting, voltage = block, 0.0
            current = current * decay_synapse + fired
            if waiting <= 0:
                voltage += current * _WEIGHT * dt
            waiting -= 1
    return steps[:count], units[:count]


@compiled
def _binomial(trials, p, rng):
    """A binomial number, by inversion: quick where `trials * p` is small."""
    if p >= 1.0:
        return trials
    left = rng.random()
    odds = p / (1.0 - p)
    mass = (1.0 - p) ** trials
    value = 0
    while left >= mass and value < trials:
        left -= mass
        value += 1
        mass *= odds * (trials - value + 1) / value
    return value
