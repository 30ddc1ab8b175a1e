"""Why guests have no network although theirs runs: what in the host's packet filter drops their packets.

nftables asks the tables of everybody; a packet that one of them drops is dropped, whatever the network's own table
says (nft(8)). Rules are looked at only as far as that can be done with certainty: a chain that drops by its policy, or
by a rule without any condition, and has no rule before that which accepts by the network's bridge.
"""

import json
import shutil
import subprocess

from virtd import constants as c
from virtd.drivers.network import firewall
from virtd.errors import VirtError

# What passes through which hook of the kernel's.
_TRAFFIC = {
    "forward": "what guests send and receive through the host",
    "input": "guests' requests for addresses and names (DHCP, DNS)",
    "output": "the host's answers to guests",
}
_SECONDS = 10.0
_Rule = dict[str, object]


def examine(bridge: str) -> list[str]:
    """What drops packets of the guests at a bridge, each with what to do about it; empty if nothing is found.

    Args:
        bridge: the network's bridge.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, nft is missing or fails.
    """
    objects = _ruleset()
    rules = [entry["rule"] for entry in objects if "rule" in entry]
    own = firewall.table_name(bridge)
    found = []
    for entry in objects:
        chain = entry.get("chain")
        if chain is None or chain.get("hook") not in _TRAFFIC or chain.get("table") == own:
            continue
        if chain.get("family") not in ("inet", "ip", "ip6"):
            continue
        mine = [rule for rule in rules if all(rule.get(key) == chain.get(value) for key, value in _PLACE)]
        dropper = _dropper(chain, mine, bridge)
        if dropper is not None:
            found.append(_advice(chain, dropper, bridge))
    return found


# How a rule names its chain.
_PLACE = (("family", "family"), ("table", "table"), ("chain", "name"))


def _ruleset() -> list[dict[str, dict[str, object]]]:
    program = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        text = "cannot find 'nft', by which the host's packet filter is read; install nftables"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)
    try:
        done = subprocess.run(
            [program, "-j", "list", "ruleset"], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
        table = json.loads(done.stdout)["nftables"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        text = f"the host's packet filter cannot be read: {error}"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK) from None
    return [entry for entry in table if isinstance(entry, dict)]


def _dropper(chain: dict[str, object], rules: list[_Rule], bridge: str) -> str | None:
    """What in a chain drops packets of the bridge; None if nothing does, or that cannot be told."""
    for rule in rules:
        expressions = [one for one in _expressions(rule) if "counter" not in one]
        verdict = next((name for name in ("accept", "drop", "reject") if any(name in one for one in expressions)), None)
        if verdict == "accept" and (len(expressions) == 1 or f'"{bridge}"' in json.dumps(expressions)):
            return None
        if verdict in ("drop", "reject") and len(expressions) == 1:
            return f"its rule '{verdict}' (handle {rule.get('handle')})"
    return "its policy 'drop'" if chain.get("policy") == "drop" else None


def _expressions(rule: _Rule) -> list[dict[str, object]]:
    found = rule.get("expr")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _advice(chain: dict[str, object], dropper: str, bridge: str) -> str:
    where = f"{chain.get('family')} {chain.get('table')} {chain.get('name')}"
    directions = {"forward": ("iifname", "oifname"), "input": ("iifname",), "output": ("oifname",)}
    hook = str(chain.get("hook"))
    commands = " and ".join(f"nft insert rule {where} {word} {bridge} accept" for word in directions[hook])
    return f"chain '{where}' drops {_TRAFFIC[hook]} by {dropper}; to let it pass: {commands}"
