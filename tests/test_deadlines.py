"""The bound of the current call: nesting, what is left, and waiting on descriptors within it."""

import math
import os
import select
import time

import pytest

from virtd import constants as c
from virtd import deadlines


def test_without_a_bound_the_default_stands() -> None:
    assert deadlines.remaining(30) == 30
    assert deadlines.remaining(math.inf) == math.inf


def test_a_bound_shortens_the_default_but_does_not_lengthen_it() -> None:
    with deadlines.limit(10):
        assert 9 < deadlines.remaining(30) <= 10
        assert deadlines.remaining(5) == 5
    assert deadlines.remaining(30) == 30


def test_an_inner_bound_can_only_be_tighter() -> None:
    with deadlines.limit(5):
        with deadlines.limit(60):
            assert deadlines.remaining(100) <= 5
        with deadlines.limit(1):
            assert deadlines.remaining(100) <= 1
        assert 4 < deadlines.remaining(100) <= 5
        with deadlines.unlimited():
            assert deadlines.remaining(100) == 100
        assert deadlines.remaining(100) <= 5


def test_the_bound_goes_when_its_block_fails() -> None:
    with pytest.raises(KeyError), deadlines.limit(0.1):
        raise KeyError
    assert deadlines.remaining(7) == 7


def test_a_passed_bound_leaves_zero() -> None:
    with deadlines.limit(-1):
        assert deadlines.remaining(10) == 0


def test_waiting_ends_with_the_bound() -> None:
    reading, writing = os.pipe()
    try:
        began = time.monotonic()
        with deadlines.limit(0.05):
            assert not deadlines.readable(reading, 60)
        assert 0.05 <= time.monotonic() - began < 5
        os.write(writing, b"x")
        assert deadlines.readable(reading, math.inf)
        assert deadlines.ready(writing, select.POLLOUT, 1) == select.POLLOUT
        os.close(writing)
        assert os.read(reading, 2) == b"x"
        assert deadlines.ready(reading, select.POLLIN, 1) & select.POLLHUP
    finally:
        os.close(reading)


def test_the_error_is_libvirts_time_out() -> None:
    error = deadlines.DeadlineExceeded("guest 'web1' did not answer", domain=c.VIR_FROM_QEMU)
    assert error.code == c.VIR_ERR_OPERATION_TIMEOUT
    assert error.message == "Timed out during operation: guest 'web1' did not answer"
    assert error.domain == c.VIR_FROM_QEMU
