"""What cannot be had is refused by name, and nothing that a guest's XML can say is dropped in silence."""

import ast
import importlib
import os
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import virtd.conf.domain
from tests.drivers.qemu.commandline import FILE, binary, disk, domain_xml, interface, parse
from virtd import constants as c
from virtd.conf.xml.model import Model
from virtd.drivers.qemu import command
from virtd.drivers.qemu.command import Setup, build, refused
from virtd.drivers.qemu.host.binary import Binary
from virtd.errors import VirtError

__all__ = ["binary"]

REFUSED = [
    ("", "<keywrap><cipher name='aes' state='on'/></keywrap>", "aes-key-wrap is not available with this QEMU binary"),
    ("", "<cpu mode='host-passthrough'/>", "CPU mode 'host-passthrough' for x86_64 qemu domain on x86_64 host"),
    ("<graphics type='rdp'/>", "", "rdp graphics are not supported with this QEMU"),
    (
        "<channel type='spicevmc'><target type='virtio'/></channel>",
        "",
        "chardev 'spicevmc' not supported without spice graphics",
    ),
    (disk("vda", FILE, device="cdrom"), "", "disk type of 'vda' does not support ejectable media"),
    (
        disk("vda", "<driver name='qemu' type='iso'/>", FILE),
        "",
        "storage format 'iso' is not directly supported by QEMU",
    ),
    (
        disk("vda", FILE, "<backingStore type='file'><format type='raw'/><source file='/b'/></backingStore>"),
        "",
        "storage format 'raw' does not support backing store",
    ),
    (disk("vda", "<source protocol='tftp' name='a'><host name='h'/></source>", kind="network"), "", "'tftp' protocol"),
    (interface("<driver queues='2'/>"), "", "Multiqueue network is not supported for: user"),
    (interface("<bandwidth><inbound average='1000'/></bandwidth>"), "", "<bandwidth> is not supported"),
    ("<watchdog model='diag288'/>", "", "watchdog"),
]


@pytest.mark.parametrize(("devices", "top", "text"), REFUSED)
def test_what_cannot_be_had_is_refused_by_name(binary: Binary, devices: str, top: str, text: str) -> None:
    with pytest.raises(VirtError, match=re.escape(text)) as caught:
        build(parse(domain_xml(devices, top)), binary, Setup(monitors=[("monitor", 99)]))
    assert caught.value.code == c.VIR_ERR_CONFIG_UNSUPPORTED


def test_nothing_is_left_open_when_something_is_refused(binary: Binary, tmp_path: Path) -> None:
    devices = f"<serial type='file'><source path='{tmp_path}/log'/></serial><watchdog model='diag288'/>"
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(VirtError):
        build(parse(domain_xml(devices)), binary, Setup(monitors=[("monitor", 99)]))
    assert len(os.listdir("/proc/self/fd")) == before


def models() -> Iterator[type[Model]]:
    """All classes of the domain's model."""
    for module in pkgutil.iter_modules(virtd.conf.domain.__path__):
        importlib.import_module(f"virtd.conf.domain.{module.name}")
    waiting = list(Model.__subclasses__())
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if model.__module__.startswith("virtd.conf.domain"):
            yield model


def test_every_declaration_is_carried_out_or_refused_or_known_to_be_inert() -> None:
    """Nothing that a guest's XML can say is dropped in silence."""
    named: set[str] = set()
    for path in Path(command.__file__).parent.glob("*.py"):
        if path.name == "refused.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                named.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                named.add(node.value)
    missing = []
    for model in models():
        lists = (refused.REFUSED, refused.INERT)
        known = {name for base in model.__mro__ for table in lists for name in table.get(base.__name__, ())}
        if model.__name__ not in refused.BELOW:
            missing += [f"{model.__name__}.{name}" for name in model.fields if name not in named | known]
    assert missing == []
