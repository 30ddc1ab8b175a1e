"""Network filters, and where they are in force."""

from __future__ import annotations

from virtd import constants as c
from virtd import uuids
from virtd.errors import VirtError
from virtd.shell import acts
from virtd.shell.acts import act, document, dump_xml
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Output, Table
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def nwfilter_list(session: Session, args: Args) -> Output:
    """virConnectListAllNWFilters."""
    with failing("Failed to list network filters"):
        filters = session.call("connect_list_all_nwfilters", 1, 0)[0]
    table = Table((("uuid", "UUID"), ("name", "Name")))
    for one in sorted(filters, key=lambda nwfilter: nwfilter.name.casefold()):
        table.add(uuids.to_text(one.uuid), one.name)
    return table


def _binding(session: Session, args: Args) -> Any:
    name = args.required("binding")
    try:
        return session.call("nwfilter_binding_lookup_by_port_dev", name)
    except VirtError as error:
        raise Failure(f"failed to get nwfilter binding '{name}'", cause=error) from None


def binding_list(session: Session, args: Args) -> Output:
    """virConnectListAllNWFilterBindings."""
    with failing("Failed to list network filter bindings"):
        bindings = session.call("connect_list_all_nwfilter_bindings", 1, 0)[0]
    table = Table((("port_dev", "Port Dev"), ("filter", "Filter")))
    for one in sorted(bindings, key=lambda binding: binding.portdev):
        table.add(one.portdev, one.filtername)
    return table


def binding_create(session: Session, args: Args) -> None:
    """virNWFilterBindingCreateXML."""
    path = args.required("file")
    text = read_text(path)
    with failing(f"Failed to create network filter from {path}"):
        flags = args.flags({"validate": c.VIR_NWFILTER_BINDING_CREATE_VALIDATE})
        binding = session.call("nwfilter_binding_create_xml", text, flags)
    session.say(f"Network filter binding on {binding.portdev} created from {path}\n")


def binding_delete(session: Session, args: Args) -> None:
    """virNWFilterBindingDelete."""
    binding = _binding(session, args)
    with failing(f"Failed to delete network filter binding on {binding.portdev}"):
        session.call("nwfilter_binding_delete", binding)
    session.say(f"Network filter binding on {binding.portdev} deleted\n")


def binding_dumpxml(session: Session, args: Args) -> Output:
    """virNWFilterBindingGetXMLDesc."""
    return document(args, session.call("nwfilter_binding_get_xml_desc", _binding(session, args), 0))


_FILE = {"file": "path"}

COMMANDS = (
    Command(
        "nwfilter-binding-create",
        "<file> [--validate]",
        "put a filter in force on a device, from an XML file",
        binding_create,
        kinds=_FILE,
    ),
    Command("nwfilter-binding-delete", "<binding>", "end a filter's being in force on a device", binding_delete),
    Command(
        "nwfilter-binding-dumpxml",
        "<binding> [--xpath =<string>] [--wrap]",
        "show the XML of a filter in force",
        binding_dumpxml,
    ),
    Command("nwfilter-binding-list", "", "show where filters are in force", binding_list),
    Command(
        "nwfilter-define",
        "<file> [--validate]",
        "define a network filter, or change its definition, from an XML file",
        acts.make(
            "nwfilter_define_xml_flags",
            "Network filter {name} defined from {file}",
            "Failed to define network filter from {file}",
            flags={"validate": c.VIR_NWFILTER_DEFINE_VALIDATE},
            plain="nwfilter_define_xml",
        ),
        kinds=_FILE,
    ),
    Command(
        "nwfilter-dumpxml",
        "<nwfilter> [--xpath =<string>] [--wrap]",
        "show a network filter's XML",
        dump_xml("nwfilter", "nwfilter_get_xml_desc"),
    ),
    Command(
        "nwfilter-edit",
        "<nwfilter>",
        "change a network filter's definition in an editor",
        acts.edit("nwfilter", "nwfilter_get_xml_desc", "nwfilter_define_xml", "Network filter", flags=0),
    ),
    Command("nwfilter-list", "", "show which network filters there are", nwfilter_list),
    Command(
        "nwfilter-undefine",
        "<nwfilter>",
        "remove a network filter",
        act(
            "nwfilter",
            "nwfilter_undefine",
            "Network filter {name} undefined",
            "Failed to undefine network filter {name}",
        ),
    ),
)
