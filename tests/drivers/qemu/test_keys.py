"""Key codes of every numbering against some that are known, and the errors."""

import pytest

from virtd import constants as c
from virtd.drivers.qemu.screen import keys
from virtd.errors import VirtError

# (numbering, code, QEMU's number): A, Enter, right Alt, Delete, F12, Print.
KNOWN = [
    (c.VIR_KEYCODE_SET_LINUX, {30: 0x1E, 28: 0x1C, 100: 0xB8, 111: 0xD3, 88: 0x58, 99: 0x54}),
    (c.VIR_KEYCODE_SET_XT, {0x1E: 0x1E, 0x1C: 0x1C, 0xE038: 0xB8, 0xE053: 0xD3, 0x58: 0x58, 0x54: 0x54}),
    (c.VIR_KEYCODE_SET_ATSET1, {0x1E: 0x1E, 0xE038: 0xB8, 0xE053: 0xD3}),
    (c.VIR_KEYCODE_SET_ATSET2, {0x1C: 0x1E, 0x5A: 0x1C, 0xE011: 0xB8, 0xE071: 0xD3, 0x07: 0x58}),
    (c.VIR_KEYCODE_SET_ATSET3, {0x1C: 0x1E, 0x5A: 0x1C, 0x39: 0xB8, 0x64: 0xD3, 0x5E: 0x58}),
    (c.VIR_KEYCODE_SET_OSX, {0x00: 0x1E, 0x24: 0x1C, 0x3D: 0xB8, 0x75: 0xD3, 0x6F: 0x58}),
    (c.VIR_KEYCODE_SET_XT_KBD, {30: 0x1E, 28: 0x1C, 0x138: 0xB8, 0x153: 0xD3, 88: 0x58}),
    (c.VIR_KEYCODE_SET_USB, {4: 0x1E, 40: 0x1C, 230: 0xB8, 76: 0xD3, 69: 0x58, 70: 0x54}),
    (c.VIR_KEYCODE_SET_WIN32, {0x41: 0x1E, 0x0D: 0x1C, 0xA5: 0xB8, 0x2E: 0xD3, 0x7B: 0x58}),
    (c.VIR_KEYCODE_SET_QNUM, {0x1E: 0x1E, 0xFFFF: 0xFFFF}),
]


@pytest.mark.parametrize(("codeset", "codes"), KNOWN)
def test_known_keys(codeset: int, codes: dict[int, int]) -> None:
    assert {code: keys.to_qnum(codeset, code) for code in codes} == codes


def test_no_numbering_has_a_key_that_qemu_cannot_have() -> None:
    for codeset in keys._TABLES:
        numbers = keys._numbers(codeset)
        assert len(numbers) > 100
        assert all(0 < number < 0x100 for code, number in numbers.items() if code)


@pytest.mark.parametrize(
    ("codeset", "code", "error", "text"),
    [
        (0, 9999, c.VIR_ERR_INTERNAL_ERROR, "cannot translate keycode 9999 of linux codeset to qnum keycode"),
        (1, 257, c.VIR_ERR_INTERNAL_ERROR, "cannot translate keycode 257 of xt codeset to qnum keycode"),
        (8, 0x4100, c.VIR_ERR_INTERNAL_ERROR, "cannot translate keycode 16640 of win32 codeset to qnum keycode"),
        (9, 0x1FFFF, c.VIR_ERR_OPERATION_FAILED, "keycode 0 is invalid: 0x1FFFF"),
        (10, 30, c.VIR_ERR_INVALID_ARG, "Unsupported codeset '10'"),
    ],
)
def test_errors_as_libvirts(codeset: int, code: int, error: int, text: str) -> None:
    with pytest.raises(VirtError) as caught:
        keys.to_qnum(codeset, code)
    assert caught.value.code == error
    assert caught.value.message.endswith(text)


def test_code_0_is_no_key_and_no_error() -> None:
    assert keys.to_qnum(c.VIR_KEYCODE_SET_LINUX, 0) == 0
