"""How costs grow: with the number of running guests, and with that of defined ones."""

import libvirt
from servers import Server
from work import Bench, Series, each, median_of

RUNNING = (1, 10, 100, 200)
DEFINED = (1000, 10000)


def run_guests(bench: Bench, server: Server, count: int) -> None:
    """See to it that so many guests run."""
    connection = server.connect()
    for number in range(connection.numOfDomains(), count):
        connection.createXML(bench.xml(f"many-{number}"))


def define_guests(bench: Bench, server: Server, count: int) -> None:
    """See to it that so many guests are defined."""
    connection = server.connect()
    for number in range(connection.numOfDefinedDomains(), count):
        connection.defineXML(bench.xml(f"many-{number}"))


def _some(connection: libvirt.virConnect, most: int = 100) -> list[libvirt.virDomain]:
    domains: list[libvirt.virDomain] = connection.listAllDomains()
    return domains[:: max(1, len(domains) // most)]


def list_all(bench: Bench, server: Server, count: int) -> float:
    return median_of(5, lambda: each(server.connect().listAllDomains, 1))


def list_and_info(bench: Bench, server: Server, count: int) -> float:
    connection = server.connect()
    times = max(5, 100 // count)
    return median_of(times, lambda: each(lambda: [domain.info() for domain in connection.listAllDomains()], 1))


def bulk_statistics(bench: Bench, server: Server, count: int) -> float:
    connection = server.connect()
    return median_of(max(5, 50 // count), lambda: each(connection.getAllDomainStats, 1))


def dump_all(bench: Bench, server: Server, count: int) -> float:
    connection = server.connect()
    domains = connection.listAllDomains()
    return median_of(max(3, 50 // count), lambda: each(lambda: [domain.XMLDesc() for domain in domains], 1))


def look_up(bench: Bench, server: Server, count: int) -> float:
    """One look-up by name."""
    connection = server.connect()
    names = [domain.name() for domain in _some(connection)]
    return each(lambda: [connection.lookupByName(name) for name in names], 3) / len(names)


def define(bench: Bench, server: Server, count: int) -> float:
    """One definition more, and its end."""
    connection = server.connect()
    return each(lambda: connection.defineXML(bench.xml("more")).undefine(), 20)


OF_RUNNING = (
    Series("list_running", "list them", list_all),
    Series("info_running", "list them, then info of each", list_and_info, 0.5),
    Series("statistics_running", "all statistics of all", bulk_statistics, 0.25),
    Series("dump_running", "the XML of all", dump_all),
    Series("look_up_running", "look one up by name", look_up),
)
OF_DEFINED = (
    Series("list_defined", "list them", list_all),
    Series("info_defined", "list them, then info of each", list_and_info),
    Series("dump_defined", "the XML of all", dump_all),
    Series("look_up_defined", "look one up by name", look_up),
    Series("define_more", "define one more, and undefine it", define),
)
