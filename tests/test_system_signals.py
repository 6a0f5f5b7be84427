"""Signals: heard as exceptions, at the end of what must not be cut short, and given back after."""

import signal
from threading import Thread

import pytest

from snn_delays.errors import Interrupted, Terminated
from snn_delays.system.signals import Signals, at_once

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def unheard(number, _):
    raise AssertionError(f"nobody took over signal {number}")


@pytest.fixture(autouse=True)
def defaults():
    """The handlers before and after: they fail a test where a terminal's would end it."""
    before = {number: signal.signal(number, unheard) for number in NUMBERS}
    yield dict.fromkeys(NUMBERS, unheard)
    for number, handler in before.items():
        signal.signal(number, handler)


def handlers():
    return {number: signal.getsignal(number) for number in NUMBERS}


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_an_exception_that_says_which_and_is_given_back(number, defaults):
    with pytest.raises(KeyboardInterrupt) as caught, Signals():
        signal.raise_signal(number)
    assert isinstance(caught.value, Terminated) == (number != signal.SIGINT)
    assert Interrupted(caught.value).exit_code == 128 + number
    assert handlers() == defaults


@pytest.mark.parametrize("number", NUMBERS)
def test_a_held_block_is_finished_first(number):
    done = []

    def work():
        with signals.held():
            signal.raise_signal(number)
            done.append(signals.holding)

    with Signals() as signals:
        with pytest.raises(KeyboardInterrupt) as caught:
            work()
        assert Interrupted(caught.value).exit_code == 128 + number
        assert (done, signals.holding) == ([True], False)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # heard at once again
    with Signals() as signals, signals.held():
        pass  # nothing was asked for, so nothing is raised


def test_after_an_error_in_a_held_block_signals_stay_unheard():
    def fail():
        with signals.held():
            signal.raise_signal(signal.SIGTERM)
            raise ZeroDivisionError

    with Signals() as signals:
        with pytest.raises(ZeroDivisionError):
            fail()
        assert signals.holding
        signal.raise_signal(signal.SIGINT)


def test_ignored_signals_stay_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # `nohup`
    for block in (Signals(), at_once()):
        with block:
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_handler_that_was_set_meanwhile_is_kept():
    heard = []
    with Signals():
        signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_outside_the_main_thread_nothing_changes(defaults):
    found = []

    def enter():
        for block in (Signals(), at_once()):
            with block:
                found.append(handlers())

    thread = Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [defaults] * 2


def test_at_once_ends_the_process_on_the_spot_and_then_no_longer():
    def fail():
        with at_once():
            assert set(handlers().values()) == {signal.SIG_DFL}
            raise ZeroDivisionError

    with Signals():
        taken_over = handlers()
        with pytest.raises(ZeroDivisionError):
            fail()
        assert handlers() == taken_over


def test_a_system_that_does_not_know_sighup(monkeypatch):
    """Stands for Windows."""
    monkeypatch.delattr(signal, "SIGHUP")
    with pytest.raises(Terminated), Signals():
        signal.raise_signal(signal.SIGTERM)
