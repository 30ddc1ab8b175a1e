"""Wireshark's dissector, which libvirt's own people generate from libvirt's protocol, understands our messages."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.protocol import recordings, samples
from virtd.protocol import messages as m
from virtd.protocol.messages import Message
from virtd.protocol.procedure import EVENT
from virtd.protocol.programs import ADMIN, LXC, PROGRAMS, QEMU, REMOTE

PORT = 16509


@pytest.fixture(scope="module", autouse=True)
def dissector() -> None:
    """Needs tshark and libvirt's plugin (Debian: libvirt-wireshark)."""
    if shutil.which("tshark") is None:
        lacking("program tshark")
    found = subprocess.run(["tshark", "-G", "protocols"], capture_output=True, text=True).stdout
    if "\tlibvirt\t" not in found:
        lacking("libvirt plugin for Wireshark")


def write_pcap(path: Path, messages: list[tuple[str, Message]]) -> None:
    """Write messages as a TCP session between port 40000 (C) and libvirt's port (S), in segments of at most 32 KiB."""
    numbers = {"C": 1, "S": 1}
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))  # raw IP

        def segment(sender: str, flags: int, data: bytes) -> None:
            ports = (40000, PORT) if sender == "C" else (PORT, 40000)
            hosts = (b"\x7f\0\0\1", b"\x7f\0\0\2") if sender == "C" else (b"\x7f\0\0\2", b"\x7f\0\0\1")
            number, other = numbers[sender], numbers["S" if sender == "C" else "C"]
            tcp = struct.pack(">HHIIBBHHH", *ports, number, other, 0x50, flags, 65535, 0, 0)
            length = 20 + len(tcp) + len(data)
            packet = struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0, 64, 6, 0) + b"".join(hosts) + tcp + data
            file.write(struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet)
            numbers[sender] = number + len(data)

        for sender, message in messages:
            data = message.to_bytes()
            for start in range(0, len(data), 32768):
                segment(sender, 0x18, data[start : start + 32768])


def dissect(path: Path) -> list[str]:
    """What the dissector makes of each message: its length, and "bad" if it cannot read it to the end."""
    fields = ["-e", "libvirt.length", "-e", "libvirt.unknown", "-e", "_ws.malformed"]
    command = ["tshark", "-r", str(path), "-d", f"tcp.port=={PORT},libvirt", "-T", "fields", *fields]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = []
    for row in rows:
        lengths, unknown, malformed = row.split("\t")
        assert "," not in lengths
        if lengths:
            found.append(f"{lengths} bad" if unknown or malformed else lengths)
    return found


def expected(message: Message) -> str:
    """What the dissector should say, given what it cannot do with libvirtd's own messages either.

    It does not know the admin program, and it chokes on stream data of less than 28 bytes.
    """
    short_data = message.type == m.STREAM and message.status == m.CONTINUE and 0 < len(message.payload) < 28
    unknown_program = PROGRAMS[message.program] is ADMIN and message.payload and message.status == m.OK
    return f"{len(message.to_bytes())}{' bad' if short_data or unknown_program else ''}"


@pytest.mark.parametrize("name", recordings.NAMES)
def test_recorded_session(name: str, tmp_path: Path) -> None:
    """The dissector agrees with us about what a recorded session consists of."""
    # It does not know that messages with descriptors carry their number either, and reads them askew.
    messages = [item for item in recordings.load(name).messages() if item[1].type not in m.WITH_FDS]
    write_pcap(tmp_path / "session.pcap", messages)
    assert dissect(tmp_path / "session.pcap") == [expected(message) for _, message in messages]


# Where it takes a string called "type" for a number, other than libvirtd 9.0.0 (tried) and libvirt's own encoder.
MISREAD = {"CONNECT_FIND_STORAGE_POOL_SOURCES", "DOMAIN_EVENT_GRAPHICS", "DOMAIN_EVENT_CALLBACK_GRAPHICS"}


def test_every_type_of_9_0(tmp_path: Path) -> None:
    """All arguments, results and events that libvirt 9.0.0 knows, as we encode them, are read to their end."""
    messages = []
    for program in (REMOTE, QEMU, LXC):
        for procedure in program.procedures.values():
            if (program is REMOTE and procedure.number > 443) or procedure.name in MISREAD:
                continue
            if procedure.kind == EVENT:
                messages.append(("S", m.make_event(procedure, samples.arguments(procedure))))
                continue
            # As plain calls and replies, because of what the dissector does not know about descriptors.
            call = m.make_call(procedure, 1, samples.arguments(procedure))._replace(type=m.CALL)
            messages.append(("C", call))
            messages.append(("S", m.make_reply(call, procedure, samples.result(procedure))._replace(type=m.REPLY)))
    write_pcap(tmp_path / "all.pcap", messages)
    assert dissect(tmp_path / "all.pcap") == [expected(message) for _, message in messages]
    assert len(messages) > 800


def test_it_would_complain(tmp_path: Path) -> None:
    """The test above can fail: a payload cut short is found out."""
    call = m.make_call(PROGRAMS[0x20008086].named["DOMAIN_LOOKUP_BY_NAME"], 1, ("web1",))
    write_pcap(tmp_path / "bad.pcap", [("C", call), ("C", call._replace(payload=call.payload[:-2]))])
    assert dissect(tmp_path / "bad.pcap") == ["36", "34 bad"]
