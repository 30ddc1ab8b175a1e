"""Keys and interrupts that virsh sends into a guest."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.guests import Guest
from tests.helpers.instance import Instance


def test_keys(virtd: Instance, running: Callable[..., Guest]) -> None:
    guest = running("web1")
    virtd.virsh("send-key", "web1", "KEY_A")
    guest.wait(b"[key 1E][key 9E]")
    virtd.virsh("send-key", "web1", "--codeset", "xt", "48")  # B in set 1
    guest.wait(b"[key 30][key B0]")
    virtd.virsh("send-key", "web1", "KEY_LEFTCTRL", "KEY_C", "--holdtime", "10")
    guest.wait(b"[key 1D][key 2E]")
    guest.wait(b"[key 9D]")
    guest.wait(b"[key AE]")
    assert virtd.virsh_error("send-key", "web1", "700").endswith(
        "cannot translate keycode 700 of linux codeset to qnum keycode"
    )


def test_nmi(virtd: Instance, running: Callable[..., Guest]) -> None:
    guest = running("web1")
    virtd.virsh("inject-nmi", "web1")
    guest.wait(b"[nmi]")
