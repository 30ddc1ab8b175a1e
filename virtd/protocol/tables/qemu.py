"""The qemu program: what passes a monitor's or an agent's own commands through to a QEMU guest.

The notation is that of virtd.protocol.tables.remote, whose shared types (domain) are used here too.
"""

# ruff: noqa: E501
from functools import partial

from virtd.protocol.procedure import CHANGE, EVENT, INSTANT, Procedure

NUMBER = 0x20008087
VERSION = 1

P = partial(Procedure, "qemu")

# fmt: off
LIMITS: dict[str, int] = {}

TYPES: dict[str, str] = {}

PROCEDURES = (
    P(1, "DOMAIN_MONITOR_COMMAND", CHANGE, "(dom: domain, cmd: string, flags: uint) -> (result: string)", "virDomainQemuMonitorCommand", "domain:write"),
    P(2, "DOMAIN_ATTACH", CHANGE, "(pid_value: uint, flags: uint) -> (dom: domain)", "virDomainQemuAttach", "domain:start domain:write"),
    P(3, "DOMAIN_AGENT_COMMAND", CHANGE, "(dom: domain, cmd: string, timeout: int, flags: uint) -> (result: string?)", "virDomainQemuAgentCommand", "domain:write"),
    P(4, "CONNECT_DOMAIN_MONITOR_EVENT_REGISTER", INSTANT, "(dom: domain?, event: string?, flags: uint) -> (callbackID: int)", "virConnectDomainQemuMonitorEventRegister", "connect:search_domains connect:write", aclfilter="domain:getattr"),
    P(5, "CONNECT_DOMAIN_MONITOR_EVENT_DEREGISTER", INSTANT, "(callbackID: int)", "virConnectDomainQemuMonitorEventDeregister", "connect:write"),
    P(6, "DOMAIN_MONITOR_EVENT", EVENT, "(callbackID: int, dom: domain, event: string, seconds: hyper, micros: uint, details: string?)"),
    P(7, "DOMAIN_MONITOR_COMMAND_WITH_FILES", CHANGE, "(dom: domain, cmd: string, flags: uint) -> (result: string)", "virDomainQemuMonitorCommandWithFiles", "domain:write", fds="both"),
)
