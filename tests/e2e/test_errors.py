"""Errors as libvirt 9.0.0 gives them: code, domain and text of what cannot be done, in each state of a guest."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.e2e.guests import Guest, make
from tests.guests.xml import domain
from tests.helpers.instance import Instance

UUID = "5d8d4e0d-6e4b-4a3f-9a0e-2b7f0a1c0001"
NO_CONNECT, NO_DOMAIN, INVALID_ARG, OPERATION_FAILED, XML_ERROR, OPERATION_INVALID = 5, 42, 8, 9, 27, 55
NO_NAME, XML_DETAIL, CONFIG_UNSUPPORTED, ARGUMENT_UNSUPPORTED, INTERNAL = 21, 35, 67, 74, 1
XML, QEMU, DOMAIN = 5, 10, 20

Failure = tuple[int, int, str]
Call = Callable[[Any], Any]


@pytest.fixture
def fails(libvirt: ModuleType) -> Callable[..., dict[str, Failure | None]]:
    """fails(object, {name: call}) -> {name: (code, domain, text) of the call's error, None if it succeeds}."""

    def fails(subject: Any, calls: dict[str, Call]) -> dict[str, Failure | None]:
        found: dict[str, Failure | None] = {}
        for name, call in calls.items():
            try:
                call(subject)
                found[name] = None
            except libvirt.libvirtError as error:
                found[name] = (error.get_error_code(), error.get_error_domain(), error.get_error_message())
        return found

    return fails


def stream(guest: Any) -> Any:
    """A new stream on a guest's connection."""
    return guest.connect().newStream()


# What needs a guest that runs.
RUNNING_ONLY: dict[str, Call] = {
    "suspend": lambda guest: guest.suspend(),
    "resume": lambda guest: guest.resume(),
    "reset": lambda guest: guest.reset(),
    "reboot": lambda guest: guest.reboot(),
    "destroy": lambda guest: guest.destroy(),
    "destroyFlags": lambda guest: guest.destroyFlags(1),
    "injectNMI": lambda guest: guest.injectNMI(),
    "sendKey": lambda guest: guest.sendKey(0, 0, [30], 1, 0),
    "controlInfo": lambda guest: guest.controlInfo(),
    "screenshot": lambda guest: guest.screenshot(stream(guest), 0),
    "openConsole": lambda guest: guest.openConsole(None, stream(guest)),
    "maxVcpus": lambda guest: guest.maxVcpus(),
    "setMetadata live": lambda guest: guest.setMetadata(1, "x", None, None, 1),
    "metadata live": lambda guest: guest.metadata(1, None, 1),
}
ALWAYS: dict[str, Call] = {
    "info": lambda guest: guest.info(),
    "state": lambda guest: guest.state(),
    "XMLDesc": lambda guest: guest.XMLDesc(),
    "OSType": lambda guest: guest.OSType(),
    "isActive": lambda guest: guest.isActive(),
    "isPersistent": lambda guest: guest.isPersistent(),
    "isUpdated": lambda guest: guest.isUpdated(),
    "autostart": lambda guest: guest.autostart(),
    "maxMemory": lambda guest: guest.maxMemory(),
    "vcpusFlags": lambda guest: guest.vcpusFlags(),
    "hasManagedSaveImage": lambda guest: guest.hasManagedSaveImage(),
}
CHANGES: dict[str, Call] = {
    "create": lambda guest: guest.create(),
    "createWithFlags": lambda guest: guest.createWithFlags(1),
    "shutdown": lambda guest: guest.shutdown(),
    "undefine": lambda guest: guest.undefine(),
    "rename": lambda guest: guest.rename("other"),
    "setAutostart": lambda guest: guest.setAutostart(1),
    "setMetadata": lambda guest: guest.setMetadata(1, "x", None, None),
    "metadata": lambda guest: guest.metadata(1, None),
}

NOT_RUNNING = "Requested operation is not valid: domain is not running"


def test_a_guest_that_is_gone(connection: Any, fails: Callable[..., Any]) -> None:
    guest = connection.defineXML(domain("web1", uuid=UUID))
    connection.lookupByName("web1").undefine()
    calls = {**RUNNING_ONLY, **ALWAYS, **CHANGES}
    text = f"Domain not found: no domain with matching uuid '{UUID}' (web1)"
    assert fails(guest, calls) == dict.fromkeys(calls, (NO_DOMAIN, QEMU, text))


def test_look_ups_of_what_is_not_there(connection: Any, fails: Callable[..., Any]) -> None:
    assert fails(
        connection,
        {
            "name": lambda connection: connection.lookupByName("nope"),
            "uuid": lambda connection: connection.lookupByUUIDString(UUID),
            "id": lambda connection: connection.lookupByID(4711),
        },
    ) == {
        "name": (NO_DOMAIN, QEMU, "Domain not found: no domain with matching name 'nope'"),
        "uuid": (NO_DOMAIN, QEMU, f"Domain not found: no domain with matching uuid '{UUID}'"),
        "id": (NO_DOMAIN, QEMU, "Domain not found: no domain with matching id 4711"),
    }


def test_a_guest_that_is_off(connection: Any, fails: Callable[..., Any]) -> None:
    guest = connection.defineXML(domain("web1"))
    assert fails(guest, RUNNING_ONLY) == dict.fromkeys(RUNNING_ONLY, (OPERATION_INVALID, DOMAIN, NOT_RUNNING))
    assert fails(guest, ALWAYS) == dict.fromkeys(ALWAYS)
    assert fails(guest, {"shutdown": lambda guest: guest.shutdown()}) == {
        "shutdown": (OPERATION_INVALID, QEMU, NOT_RUNNING)
    }


def test_a_guest_that_is_paused(connection: Any, fails: Callable[..., Any]) -> None:
    guest = connection.createXML(domain("web1", devices="<video><model type='vga'/></video>"), 1)
    calls = {name: RUNNING_ONLY[name] for name in ("suspend", "reset", "injectNMI", "sendKey", "screenshot")}
    assert fails(guest, calls) == dict.fromkeys(calls)
    assert fails(guest, {"shutdown": CHANGES["shutdown"], "create": CHANGES["create"]}) == {
        "shutdown": (OPERATION_INVALID, QEMU, NOT_RUNNING),
        "create": (OPERATION_INVALID, QEMU, "Requested operation is not valid: domain is already running"),
    }


def test_a_guest_that_runs(connection: Any, fails: Callable[..., Any]) -> None:
    guest = connection.defineXML(domain("web1", uuid=UUID))
    guest.create()
    running = (OPERATION_INVALID, QEMU, "Requested operation is not valid: domain is already running")
    no_agent = (ARGUMENT_UNSUPPORTED, QEMU, "argument unsupported: QEMU guest agent is not configured")
    assert fails(
        guest,
        {
            "create": CHANGES["create"],
            "createWithFlags": CHANGES["createWithFlags"],
            "resume": RUNNING_ONLY["resume"],
            "rename": CHANGES["rename"],
            "shutdown by the agent": lambda guest: guest.shutdownFlags(2),
            "reboot by the agent": lambda guest: guest.reboot(2),
            "createXML": lambda guest: guest.connect().createXML(domain("web1", uuid=UUID)),
        },
    ) == {
        "create": running,
        "createWithFlags": running,
        "resume": running,
        "rename": (OPERATION_INVALID, QEMU, "Requested operation is not valid: cannot rename active domain"),
        "shutdown by the agent": no_agent,
        "reboot by the agent": no_agent,
        "createXML": (OPERATION_INVALID, DOMAIN, "Requested operation is not valid: domain 'web1' is already active"),
    }
    assert fails(guest, ALWAYS) == dict.fromkeys(ALWAYS)


def test_names_and_uuids_are_taken_once(connection: Any, fails: Callable[..., Any]) -> None:
    connection.defineXML(domain("web1", uuid=UUID))
    other = UUID.replace("0001", "0002")
    for call in ("defineXML", "createXML"):
        assert fails(
            connection,
            {
                "name": lambda connection, call=call: getattr(connection, call)(domain("web1", uuid=other)),
                "uuid": lambda connection, call=call: getattr(connection, call)(domain("web2", uuid=UUID)),
            },
        ) == {
            "name": (OPERATION_FAILED, DOMAIN, f"operation failed: domain 'web1' already exists with uuid {UUID}"),
            "uuid": (OPERATION_FAILED, DOMAIN, f"operation failed: domain 'web1' is already defined with uuid {UUID}"),
        }
    assert [guest.name() for guest in connection.listAllDomains()] == ["web1"]


def test_xml_that_is_wrong(connection: Any, fails: Callable[..., Any]) -> None:
    good = domain("web1")
    documents = {
        "empty": "",
        "garbage": "garbage",
        "unclosed": '<domain type="qemu"><name>x</nam>',
        "no domain": "<foo/>",
        "no name": "<domain type='qemu'/>",
        "slash": good.replace("web1", "x/y"),
        "no memory": good.replace("<memory unit='MiB'>32</memory>", ""),
        "bad uuid": domain("web1", uuid="nonsense"),
        "bad type": good.replace("type='qemu'", "type='nonsense'"),
        "no such emulator": good.replace("type='qemu'", "type='xen'"),
        "preserve": domain("web1", head="<on_poweroff>preserve</on_poweroff>"),
    }
    found = fails(
        connection,
        {name: lambda connection, text=text: connection.defineXML(text) for name, text in documents.items()},
    )
    # libvirt-python has an own opinion of an empty document, or none: the server's answer is what counts.
    assert found == {
        "empty": (XML_DETAIL, DOMAIN, "(domain_definition):1: Document is empty\n(null)\n^"),
        "garbage": (
            XML_DETAIL,
            DOMAIN,
            "(domain_definition):1: Start tag expected, '<' not found\ngarbage\n^",
        ),
        "unclosed": (
            XML_DETAIL,
            DOMAIN,
            "(domain_definition):1: Opening and ending tag mismatch: name line 1 and nam\n"
            '<domain type="qemu"><name>x</nam>\n---------------------------------^',
        ),
        "no domain": (XML_ERROR, XML, "XML error: expecting root element of 'domain', not 'foo'"),
        "no name": (NO_NAME, DOMAIN, "missing name information"),
        "slash": (XML_ERROR, DOMAIN, "XML error: name x/y cannot contain '/'"),
        "no memory": (
            XML_ERROR,
            DOMAIN,
            "XML error: Memory size must be specified via <memory> or in the <numa> configuration",
        ),
        "bad uuid": (INTERNAL, DOMAIN, "internal error: malformed uuid element"),
        "bad type": (CONFIG_UNSUPPORTED, DOMAIN, "unsupported configuration: invalid domain type nonsense"),
        "no such emulator": (
            CONFIG_UNSUPPORTED,
            QEMU,
            "unsupported configuration: Emulator '/usr/bin/qemu-system-x86_64' does not support virt type 'xen'",
        ),
        "preserve": (
            CONFIG_UNSUPPORTED,
            QEMU,
            "unsupported configuration: qemu driver doesn't support the 'preserve' action for "
            "'on_reboot'/'on_poweroff'",
        ),
    }
    assert connection.listAllDomains() == []


def test_what_is_not_supported_is_refused_by_name(connection: Any, fails: Callable[..., Any]) -> None:
    (found,) = fails(
        connection,
        {"bootloader": lambda connection: connection.defineXML(domain("web1", head="<bootloader>/x</bootloader>"))},
    ).values()
    assert found is not None
    assert found[0] == CONFIG_UNSUPPORTED
    assert "bootloader" in found[2]


def test_flags_that_are_not_supported(connection: Any, fails: Callable[..., Any]) -> None:
    guest = connection.defineXML(domain("web1"))
    guest.create()
    calls: dict[str, Call] = {
        "qemuDomainCreateWithFlags": lambda guest: guest.createWithFlags(16),
        "qemuDomainShutdownFlags": lambda guest: guest.shutdownFlags(16),
        "qemuDomainReboot": lambda guest: guest.reboot(16),
        "qemuDomainReset": lambda guest: guest.reset(16),
        "qemuDomainDestroyFlags": lambda guest: guest.destroyFlags(16),
        "qemuDomainInjectNMI": lambda guest: guest.injectNMI(16),
        "qemuDomainSendKey": lambda guest: guest.sendKey(0, 0, [30], 1, 16),
        "qemuDomainScreenshot": lambda guest: guest.screenshot(stream(guest), 0, 16),
        "qemuDomainOpenConsole": lambda guest: guest.openConsole(None, stream(guest), 16),
        "qemuDomainGetState": lambda guest: guest.state(16),
        "qemuDomainGetXMLDesc": lambda guest: guest.XMLDesc(16),
        "qemuDomainGetVcpusFlags": lambda guest: guest.vcpusFlags(16),
        "qemuDomainSetMetadata": lambda guest: guest.setMetadata(1, "x", None, None, 16),
        "qemuDomainGetControlInfo": lambda guest: guest.controlInfo(16),
        "qemuDomainHasManagedSaveImage": lambda guest: guest.hasManagedSaveImage(16),
        "qemuDomainDefineXMLFlags": lambda guest: guest.connect().defineXMLFlags(domain("web2"), 16),
        "qemuDomainRename": lambda guest: guest.rename("other", 16),
    }
    assert fails(guest, calls) == {
        name: (INVALID_ARG, QEMU, f"unsupported flags (0x10) in function {name}") for name in calls
    }


def test_a_start_that_fails_says_why_and_leaves_nothing(
    virtd: Instance, connection: Any, libvirt: ModuleType, defined: Callable[..., Guest]
) -> None:
    guest = defined("web1")
    guest.disk.unlink()
    with pytest.raises(libvirt.libvirtError, match=r"web1\.img") as caught:
        connection.lookupByName("web1").create()
    assert "No such file or directory" in caught.value.get_error_message()
    assert virtd.virsh("domstate", "--reason", "web1") == "shut off (unknown)"
    assert "qemu-system" not in "".join(process.title for process in virtd.processes())
    make(virtd.root, "web1")
    virtd.virsh("start", "web1")
    guest.wait()
