"""What a call demands of its caller, and what a read-only connection may do.

An access rule of the table is an object and a permission, and maybe when it applies:

    domain:write                                always
    domain:read_secure:VIR_DOMAIN_XML_SECURE    if all these flags (joined by |) are set in the call's flags
    domain:save:!VIR_DOMAIN_AFFECT_CONFIG       if none of these flags is set
    domain:write::source:VIR_..._SRC_AGENT      if this argument has that value

A caller must have the permissions of all rules that apply. Flags newer than libvirt 9.0.0 stand there as numbers.
"""

from __future__ import annotations

from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol.codec import argument_names
from virtd.protocol.procedure import Procedure
from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Rule(NamedTuple):
    """One access rule.

    Attributes:
        permission: "object:permission".
        argument: the position of the argument that it looks at; -1 if it always applies.
        mask, value: the rule applies if that argument, masked, has this value.
    """

    permission: str
    argument: int
    mask: int
    value: int


_rules: dict[Procedure, tuple[Rule, ...]] = {}


def _number(names: str) -> int:
    number = 0
    for name in names.split("|"):
        number |= int(name) if name.isdigit() else getattr(c, name)
    return number


def _parse(text: str, names: Sequence[str]) -> Rule:
    kind, _, rest = text.partition(":")
    permission, _, condition = rest.partition(":")
    permission = f"{kind}:{permission}"
    if not condition:
        return Rule(permission, -1, 0, 0)
    if condition.startswith(":"):
        name, _, value = condition[1:].partition(":")
        return Rule(permission, names.index(name), -1, _number(value))
    mask = _number(condition.lstrip("!"))
    return Rule(permission, names.index("flags"), mask, 0 if condition.startswith("!") else mask)


def rules(procedure: Procedure) -> tuple[Rule, ...]:
    """The access rules of a procedure."""
    found = _rules.get(procedure)
    if found is None:
        names = argument_names(procedure)
        found = _rules[procedure] = tuple(_parse(text, names) for text in procedure.acl.split())
    return found


def required(procedure: Procedure, args: Sequence[Any]) -> list[str]:
    """The permissions ("object:permission") which a call with these arguments demands."""
    return [
        rule.permission
        for rule in rules(procedure)
        if rule.argument < 0 or args[rule.argument] & rule.mask == rule.value
    ]


# What a read-only connection may do: look, not touch. Every kind of object grants it getattr and read.
_READ_ONLY = frozenset(
    [
        *(
            f"{kind}:{permission}"
            for kind in (
                "connect", "domain", "interface", "network", "network_port", "node_device", "nwfilter",
                "nwfilter_binding", "secret", "storage_pool", "storage_vol",
            )
            for permission in ("getattr", "read")
        ),
        *(
            f"connect:search_{kinds}"
            for kinds in (
                "domains", "interfaces", "networks", "node_devices", "nwfilters", "nwfilter_bindings", "secrets",
                "storage_pools",
            )
        ),
        "network:search_ports",
        "storage_pool:search_storage_vols",
    ]
)  # fmt: skip

# Where libvirt 9.0.0 goes by something else than its access rules (measured on its read-only socket).
_READ_ONLY_ODD = {
    "domain_set_scheduler_parameters": False,
    "domain_get_launch_security_info": False,
    "node_get_sev_info": False,
    "node_device_get_autostart": False,
    "domain_migrate_get_compression_cache": True,
    "domain_migrate_get_max_downtime": True,
    "connect_set_identity": True,
    "qemu_connect_domain_monitor_event_deregister": True,
}

# Which part of libvirt refuses a call, by how the procedure's name begins; the first that fits.
_REFUSED_BY = (
    ("domain_snapshot_", c.VIR_FROM_DOMAIN_SNAPSHOT),
    ("domain_revert_to_snapshot", c.VIR_FROM_DOMAIN_SNAPSHOT),
    ("domain_checkpoint_", c.VIR_FROM_DOMAIN_CHECKPOINT),
    ("network_", c.VIR_FROM_NETWORK),
    ("storage_", c.VIR_FROM_STORAGE),
    ("connect_find_storage_", c.VIR_FROM_STORAGE),
    ("node_device_", c.VIR_FROM_NODEDEV),
    ("interface_", c.VIR_FROM_INTERFACE),
    ("secret_", c.VIR_FROM_SECRET),
    ("nwfilter_", c.VIR_FROM_NWFILTER),
    ("qemu_", c.VIR_FROM_NONE),
    ("lxc_", c.VIR_FROM_NONE),
    ("", c.VIR_FROM_DOMAIN),
)


def read_only_allows(procedure: Procedure, args: Sequence[Any]) -> bool:
    """Whether a read-only connection may make this call."""
    odd = _READ_ONLY_ODD.get(procedure.method)
    return _READ_ONLY.issuperset(required(procedure, args)) if odd is None else odd


def read_only_refusal(procedure: Procedure, args: Sequence[Any]) -> VirtError:
    """What libvirt says to a read-only connection which may not make this call."""
    lacking = [rule for rule in rules(procedure) if rule.permission.endswith(":read_secure") and rule.mask]
    if lacking and set(required(procedure, args)) - {rule.permission for rule in lacking} <= _READ_ONLY:
        detail = f"{procedure.api} with secure flag"
    else:
        detail = f"read only access prevents {procedure.api}"
    domain = next(domain for prefix, domain in _REFUSED_BY if procedure.method.startswith(prefix))
    return VirtError(c.VIR_ERR_OPERATION_DENIED, detail, domain=domain)
