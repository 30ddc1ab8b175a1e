"""What of the host's packet filter keeps guests from their network."""

import pytest

from tests.drivers.network.conftest import run
from virtd.drivers.network import doctor


@pytest.fixture
def table(namespace: None) -> str:
    run("nft", "add", "table", "inet", "fw")
    return "inet fw"


def chain(hook: str, policy: str) -> None:
    run("nft", "add", "chain", "inet", "fw", hook, f"{{ type filter hook {hook} priority 0; policy {policy}; }}")


def rule(hook: str, *words: str) -> None:
    run("nft", "add", "rule", "inet", "fw", hook, *words)


def test_policy(table: str) -> None:
    assert doctor.examine("vb") == []
    chain("forward", "drop")
    (found,) = doctor.examine("vb")
    assert found == (
        "chain 'inet fw forward' drops what guests send and receive through the host by its policy 'drop'; "
        "to let it pass: nft insert rule inet fw forward iifname vb accept "
        "and nft insert rule inet fw forward oifname vb accept"
    )
    # What it says helps.
    for command in found.partition("to let it pass: ")[2].split(" and "):
        run(*command.split())
    assert doctor.examine("vb") == []
    assert len(doctor.examine("vb2")) == 1


def test_rules(table: str) -> None:
    chain("input", "accept")
    rule("input", "tcp", "dport", "22", "accept")
    rule("input", "ip", "saddr", "10.0.0.0/8", "drop")
    assert doctor.examine("vb") == []
    rule("input", "counter", "reject")
    (found,) = doctor.examine("vb")
    assert "'inet fw input' drops guests' requests for addresses and names (DHCP, DNS) by its rule 'reject'" in found


def test_all_accepted_before(table: str) -> None:
    chain("output", "drop")
    rule("output", "counter", "accept")
    assert doctor.examine("vb") == []


def test_own_table_does_not_count(namespace: None) -> None:
    run("nft", "add", "table", "inet", "virtd_vb")
    run("nft", "add", "chain", "inet", "virtd_vb", "f", "{ type filter hook forward priority 0; policy drop; }")
    assert doctor.examine("vb") == []
