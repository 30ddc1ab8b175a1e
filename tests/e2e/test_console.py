"""`virsh console`: what the guest says, what is typed, and who may have it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.guests import Guest, console, wait_off
from tests.guests.bootsector import POWER_OFF
from tests.helpers.instance import Instance


@pytest.fixture
def web1(virtd: Instance, defined: Callable[..., Guest]) -> None:
    """A running guest 'web1' with a console."""
    defined("web1", console=True)
    virtd.virsh("start", "web1")


@pytest.mark.usefixtures("web1")
def test_what_the_guest_says_comes_and_what_is_typed_goes(virtd: Instance) -> None:
    with console(virtd, "web1") as terminal:
        virtd.virsh("reset", "web1")
        terminal.until(b"virtd: booted\r\n")
        terminal.type(b"hello")
        terminal.until(b"hello")
        assert terminal.leave() == 0
    # The next one goes on where that one left.
    with console(virtd, "web1") as terminal:
        terminal.type(b"again")
        terminal.until(b"again")
        assert terminal.leave() == 0


@pytest.mark.usefixtures("web1")
def test_one_client_at_a_time_unless_by_force(virtd: Instance) -> None:
    with console(virtd, "web1") as first:
        for option in ([], ["--safe"]):
            with virtd.console("web1", *option) as second:
                assert second.until_end() == 1
                assert b"operation failed: Active console session exists for this domain" in second.output
        first.type(b"still here")
        first.until(b"still here")
        with console(virtd, "web1", "--force") as third:
            first.until_end()
            third.type(b"mine now")
            third.until(b"mine now")
            assert third.leave() == 0


@pytest.mark.usefixtures("web1")
def test_a_client_that_is_killed_leaves_the_console_free(virtd: Instance) -> None:
    with console(virtd, "web1") as first:
        first.process.kill()
    with console(virtd, "web1", "--force") as second:
        second.type(b"free")
        second.until(b"free")


@pytest.mark.usefixtures("web1")
def test_the_console_ends_with_the_guest(virtd: Instance) -> None:
    with console(virtd, "web1") as terminal:
        terminal.type(POWER_OFF)
        assert terminal.until_end() == 0
    wait_off(virtd, "web1")
    virtd.virsh("start", "web1")
    with console(virtd, "web1") as terminal:
        virtd.virsh("destroy", "web1")
        assert terminal.until_end() == 0


def test_a_guest_that_is_off_has_no_console(virtd: Instance, defined: Callable[..., Guest]) -> None:
    defined("web1", console=True)
    with virtd.console("web1") as refused:
        assert refused.until_end() == 1
        assert b"error: The domain is not running" in refused.output


def test_only_terminals_are_consoles(virtd: Instance, running: Callable[..., Guest]) -> None:
    running("web1")  # its serial port is a file
    for options, text in (
        ([], b"internal error: character device console0 is not using a PTY"),
        (["--devname", "serial0"], b"internal error: character device serial0 is not using a PTY"),
        (["--devname", "nope"], b"internal error: cannot find character device nope"),
    ):
        with virtd.console("web1", *options) as refused:
            assert refused.until_end() == 1
            assert text in refused.output


@pytest.mark.usefixtures("web1")
def test_a_console_by_its_alias(virtd: Instance) -> None:
    for alias in ("serial0", "console0"):
        with console(virtd, "web1", "--devname", alias) as terminal:
            assert terminal.leave() == 0
