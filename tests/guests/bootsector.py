"""A guest in one disk sector, for tests that need a guest but no operating system.

It boots in a fraction of a second under TCG, needs no firmware setting, no disk but itself, and sleeps in `hlt`
with only the interrupts it handles unmasked, so a hundred of them cost nothing. After its message (on the first
serial port and on the screen) it does one of ACTIONS; `serve` is the one that lets itself be steered:

    power button (ACPI)        "[power button]", then powers off, within the interrupt
    a byte on the serial port  POWER_OFF, REBOOT and PANIC do what they say, any other byte is echoed
    a key                      "[key XX]" for each scancode of set 1, XX in hex: a press, and then its release
    NMI                        "[nmi]"

The program is machine code with its assembly beside it: no assembler has to be installed where the tests run. This
module knows nothing of virtd, QEMU's command line or pytest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = [
    "ACTIONS",
    "MESSAGE",
    "PANIC",
    "POWER_OFF",
    "REBOOT",
    "assemble",
    "boot_sector",
    "write_boot_disk",
]

SECTOR_SIZE: Final = 512
DISK_SIZE: Final = 1 << 20  # SeaBIOS does not read AHCI and virtio disks smaller than a cylinder of 16 heads
LOAD_ADDRESS: Final = 0x7C00

MESSAGE: Final = "virtd: booted"
POWER_OFF: Final = b"\x10"  # Ctrl-P
REBOOT: Final = b"\x12"  # Ctrl-R
PANIC: Final = b"\x0b"  # Ctrl-K

# What the guest does after its message, as the label at which it goes on. `ignore` looks like `serve`, but does not
# react to the power button.
ACTIONS: Final = {
    "serve": "listen",
    "ignore": "listen",
    "halt": "halt",
    "poweroff": "poweroff",
    "reboot": "reboot",
    "panic": "panic",
}

# One instruction a line: [label:] machine code ; assembly. `NAME~1` and `NAME~2` stand for the distance to a label
# in one or two bytes, `NAME@` for its address.
_PROGRAM: Final = """
        fa                          ; cli
        31 c0                       ; xor  ax, ax
        8e d8                       ; mov  ds, ax
        8e d0                       ; mov  ss, ax
        bc 00 7c                    ; mov  sp, 0x7c00
        fc                          ; cld
        eb first~1                  ; jmp  first
; Before anybody is told that it has booted: who presses the button right after that must not press in vain.
enable: ba 02 06                    ; mov  dx, 0x602       ACPI PM1 enable, where SeaBIOS puts it on pc and q35
        b8 00 01                    ; mov  ax, 0x100       the power button
        ef                          ; out  dx, ax
greet:  be message@                 ; mov  si, message
        e8 print~2                  ; call print
        e9 action~2                 ; jmp  action

; Interrupt vectors and masks. Everything else, the timer above all, stays masked.
listen: c7 06 08 00 on_nmi@         ; mov  word [0x02*4], on_nmi
        89 1e 0a 00                 ; mov  [0x02*4+2], bx
        c7 06 24 00 on_key@         ; mov  word [0x09*4], on_key       IRQ 1
        89 1e 26 00                 ; mov  [0x09*4+2], bx
        c7 06 30 00 on_byte@        ; mov  word [0x0c*4], on_byte      IRQ 4
        89 1e 32 00                 ; mov  [0x0c*4+2], bx
        c7 06 c4 01 on_sci@         ; mov  word [0x71*4], on_sci       IRQ 9
        89 1e c6 01                 ; mov  [0x71*4+2], bx
        ba f9 03                    ; mov  dx, 0x3f9       UART: interrupt when a byte came in
        b0 01                       ; mov  al, 1
        ee                          ; out  dx, al
        ba fc 03                    ; mov  dx, 0x3fc       UART: OUT2 lets its interrupt through
        b0 0b                       ; mov  al, 0x0b
        ee                          ; out  dx, al
        b0 e9                       ; mov  al, 0xe9        IRQ 1, 2 (the second controller) and 4
        e6 21                       ; out  0x21, al
        b0 fd                       ; mov  al, 0xfd        IRQ 9
        e6 a1                       ; out  0xa1, al
        b0 20                       ; mov  al, 0x20        a key that waited since the firmware's time is not ours
        e6 20                       ; out  0x20, al
idle:   fb                          ; sti
        f4                          ; hlt
        eb idle~1                   ; jmp  idle

on_sci: ba 00 06                    ; mov  dx, 0x600       ACPI PM1 status: written back, it is cleared
        ed                          ; in   ax, dx
        ef                          ; out  dx, ax
        f6 c4 01                    ; test ah, 1
        74 eoi2~1                   ; jz   eoi2
        be button@                  ; mov  si, button
        e8 print~2                  ; call print
poweroff:
        ba 04 06                    ; mov  dx, 0x604       ACPI PM1 control: sleep, type S5
        b8 00 20                    ; mov  ax, 0x2000
        ef                          ; out  dx, ax
halt:   fa                          ; cli
        f4                          ; hlt
        eb halt~1                   ; jmp  halt

reboot: ba f9 0c                    ; mov  dx, 0xcf9       reset control: hard reset
        b0 06                       ; mov  al, 6
        ee                          ; out  dx, al
        eb halt~1                   ; jmp  halt

panic:  ba 05 05                    ; mov  dx, 0x505       pvpanic: panicked
        b0 01                       ; mov  al, 1
        ee                          ; out  dx, al
        eb halt~1                   ; jmp  halt

on_byte:
        ba fd 03                    ; mov  dx, 0x3fd       UART line status: data ready?
        ec                          ; in   al, dx
        a8 01                       ; test al, 1
        74 eoi~1                    ; jz   eoi
        b2 f8                       ; mov  dl, 0xf8
        ec                          ; in   al, dx
        3c 10                       ; cmp  al, POWER_OFF
        74 poweroff~1               ; je   poweroff
        3c 12                       ; cmp  al, REBOOT
        74 reboot~1                 ; je   reboot
        3c 0b                       ; cmp  al, PANIC
        74 panic~1                  ; je   panic
        e8 put~2                    ; call put
        eb on_byte~1                ; jmp  on_byte

on_key: e4 60                       ; in   al, 0x60
        50                          ; push ax
        be key@                     ; mov  si, key
        e8 print~2                  ; call print
        58                          ; pop  ax
        e8 puthex~2                 ; call puthex
        be close@                   ; mov  si, close
        e8 print~2                  ; call print
        eb eoi~1                    ; jmp  eoi

on_nmi: be nmi@                     ; mov  si, nmi
        e8 print~2                  ; call print
        cf                          ; iret

eoi2:   b0 20                       ; mov  al, 0x20
        e6 a0                       ; out  0xa0, al
eoi:    b0 20                       ; mov  al, 0x20
        e6 20                       ; out  0x20, al
        cf                          ; iret

; al in two hex digits. Changes ax, cx, dx, bx.
puthex: 88 c1                       ; mov  cl, al
        c0 e8 04                    ; shr  al, 4
        e8 putdig~2                 ; call putdig
        88 c8                       ; mov  al, cl
        24 0f                       ; and  al, 0x0f
putdig: 3c 0a                       ; cmp  al, 10
        1c 69                       ; sbb  al, 0x69        the classic: 0..15 to '0'..'F'
        2f                          ; das
; al to the serial port, when it has room, and to the screen. Changes ah, bx, dx.
put:    50                          ; push ax
        ba fd 03                    ; mov  dx, 0x3fd
room:   ec                          ; in   al, dx
        a8 20                       ; test al, 0x20
        74 room~1                   ; jz   room
        58                          ; pop  ax
        b2 f8                       ; mov  dl, 0xf8
        ee                          ; out  dx, al
        b4 0e                       ; mov  ah, 0x0e        BIOS: write a character
        31 db                       ; xor  bx, bx
        cd 10                       ; int  0x10
        31 db                       ; xor  bx, bx
        c3                          ; ret

; The string at si, to its zero byte.
print:  ac                          ; lodsb
        84 c0                       ; test al, al
        74 printed~1                ; jz   printed
        e8 put~2                    ; call put
        eb print~1                  ; jmp  print
printed:
        31 db                       ; xor  bx, bx
        c3                          ; ret
"""

_STRINGS: Final = {
    "button": "[power button]\r\n",
    "key": "[key ",
    "close": "]",
    "nmi": "[nmi]",
}


def boot_sector(message: str = MESSAGE, then: str = "serve") -> bytes:
    """The 512 bytes of a disk that boots this guest.

    `message` (ASCII, at most 80 characters; a line end is added) is printed on every boot; `then` is one of
    ACTIONS. Raises KeyError for another action, ValueError for a message that does not fit.
    """
    code = assemble(
        _PROGRAM,
        LOAD_ADDRESS,
        strings={**_STRINGS, "message": message + "\r\n"},
        aliases={"action": ACTIONS[then], "first": "enable" if then == "serve" else "greet"},
    )
    if len(code) > SECTOR_SIZE - 2 - 64:  # what follows is the partition table, which firmware may look at
        raise ValueError(f"the boot sector's program takes {len(code)} bytes, 446 is the most; shorten the message")
    return code.ljust(SECTOR_SIZE - 2, b"\0") + b"\x55\xaa"


def write_boot_disk(path: Path, message: str = MESSAGE, then: str = "serve") -> Path:
    """Write a raw disk image (1 MiB, sparse) that boots this guest to `path`, and return it. Arguments and errors
    as boot_sector's.
    """
    with path.open("wb") as image:
        image.write(boot_sector(message, then))
        image.truncate(DISK_SIZE)
    return path


def assemble(program: str, origin: int, *, strings: dict[str, str], aliases: dict[str, str]) -> bytes:
    """Turn a listing like _PROGRAM into the bytes to be loaded at `origin`.

    `strings` are placed behind the program, zero-terminated, under their names; `aliases` gives labels a second
    name. Raises ValueError for a jump too long for its one byte, KeyError for a label that is not there.
    """
    labels: dict[str, int] = {}
    code = bytearray()
    fixes: list[tuple[int, int, str, bool]] = []  # where, bytes, label, relative?
    for line in program.splitlines():
        words = line.partition(";")[0].split()
        for word in words:
            if word.endswith(":"):
                labels[word[:-1]] = len(code)
            elif word.endswith("@"):
                fixes.append((len(code), 2, word[:-1], False))
                code += bytes(2)
            elif "~" in word:
                label, _, width = word.partition("~")
                fixes.append((len(code), int(width), label, True))
                code += bytes(int(width))
            else:
                code += bytes.fromhex(word)
    for name, text in strings.items():
        labels[name] = len(code)
        code += text.encode("ascii") + b"\0"
    for where, size, name, relative in fixes:
        target = labels[aliases.get(name, name)]
        value = target - (where + size) if relative else origin + target
        try:
            code[where : where + size] = value.to_bytes(size, "little", signed=relative)
        except OverflowError:
            raise ValueError(f"{name} is {value} bytes away: too far for {size} byte(s)") from None
    return bytes(code)
