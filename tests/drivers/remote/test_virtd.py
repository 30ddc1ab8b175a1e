"""The remote driver and virtd itself: whoever calls cannot tell it from a local driver."""

import os
import select
from collections.abc import Iterator

import pytest

from tests.helpers.instance import Instance
from virtd import constants as c
from virtd.drivers.base import Connection, Context, Identity
from virtd.drivers.remote.driver import open_remote
from virtd.errors import VirtError
from virtd.state import paths

XML = "<domain type='qemu'><name>quiet</name><memory>16384</memory><os><type arch='x86_64'>hvm</type></os></domain>"


@pytest.fixture
def connection(virtd: Instance) -> Iterator[Connection]:
    identity = Identity(os.getuid(), os.getgid(), os.getpid(), "local")
    made = open_remote(virtd.uri, Context(paths.below(str(virtd.root)), identity, os.getpid()), ping=(5, 5))
    yield made
    made.close()


def test_a_guest_is_defined_and_found(connection: Connection) -> None:
    guest = connection.require("domain_define_xml_flags", "virDomainDefineXMLFlags")(XML, 0)
    assert connection.require("domain_lookup_by_name", "virDomainLookupByName")("quiet") == guest
    assert connection.require("connect_list_all_domains", "virConnectListAllDomains")(1, 0) == ([guest], 1)
    assert "<name>quiet</name>" in connection.require("domain_get_xml_desc", "virDomainGetXMLDesc")(guest, 0)
    connection.require("domain_undefine_flags", "virDomainUndefineFlags")(guest, 0)
    with pytest.raises(VirtError) as caught:
        connection.require("domain_lookup_by_name", "virDomainLookupByName")("quiet")
    assert (caught.value.code, caught.value.domain) == (c.VIR_ERR_NO_DOMAIN, c.VIR_FROM_QEMU)


def test_events(connection: Connection) -> None:
    register = connection.require("connect_domain_event_callback_register_any", "")
    callback = register(c.VIR_DOMAIN_EVENT_ID_LIFECYCLE, None)
    connection.require("domain_define_xml_flags", "")(XML, 0)
    [descriptor] = connection.event_fds()
    events = connection.read_events()
    while not events:
        assert select.select([descriptor], [], [], 10)[0]
        events = connection.read_events()
    [event] = events
    assert event.procedure == "DOMAIN_EVENT_CALLBACK_LIFECYCLE"
    number, message = event.values
    assert (number, message.dom.name, message.event) == (callback, "quiet", c.VIR_DOMAIN_EVENT_DEFINED)


def test_what_nobody_has(connection: Connection) -> None:
    with pytest.raises(VirtError) as caught:
        connection.require("connect_domain_xml_from_native", "")("qemu-argv", "qemu", 0)
    assert caught.value.code == c.VIR_ERR_NO_SUPPORT
    assert caught.value.detail == "virConnectDomainXMLFromNative"
