"""The CPUs of hosts and guests: what is found, what a guest is given, what it sees."""

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.qemu.commandline import QEMU
from tests.drivers.qemu.instance import Instance
from virtd import constants as c
from virtd.conf.cpu import x86map
from virtd.conf.domain.cpu import Cpu
from virtd.conf.xml.document import parse_document
from virtd.conf.xml.model import View
from virtd.drivers.qemu.command.cpusettle import settle
from virtd.drivers.qemu.host import hostcpu, hostfacts, probe
from virtd.drivers.qemu.host.binary import Binary, CpuModel
from virtd.errors import VirtError

pytestmark = pytest.mark.skipif(not os.path.exists(QEMU), reason="needs QEMU")
FACTS = json.loads((Path(__file__).parents[2] / "conf/cpu/qemu-7.2-tcg.json").read_text())
# What libvirt makes of host-model with this QEMU.
EPYC = (
    "+acpi +ss +monitor +hypervisor +erms +mpx +pcommit +clwb +umip +pku +vaes +la57 +pks +3dnowext +3dnow +npt +vgif "
    "+svme-addr-chk -vme -rdseed -sha-ni -xsavec -fxsr_opt -misalignsse -3dnowprefetch -osvw -topoext -nrip-save"
)


@pytest.fixture(scope="module")
def qemu72(tmp_path_factory: pytest.TempPathFactory) -> Binary:
    """This host's QEMU, with the CPU models of version 7.2."""
    models = [CpuModel(name, "", tuple(blockers), False) for name, blockers in FACTS["blockers"].items()]
    found = probe.probe(QEMU, str(tmp_path_factory.mktemp("cache")))
    return dataclasses.replace(found, cpu_models=tuple(models), widest_cpu=FACTS["widest"])


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    found = Instance()
    yield found
    found.close()


def read(xml: str) -> Cpu:
    return Cpu.read(parse_document(xml, "cpu"), View())


def feature(policy: str, name: str) -> str:
    return f"<feature policy='{policy}' name='{name}'/>"


def shown(cpu: Cpu) -> str:
    signs = {"force": "!+", "require": "+", "disable": "-", "forbid": "!-", "optional": "?"}
    return " ".join([str(cpu.model), *(f"{signs[one.policy or 'require']}{one.name}" for one in cpu.features)])


SETTLED = [
    ("<cpu><model>Penryn</model></cpu>", "Penryn"),
    ("<cpu mode='host-model'/>", f"EPYC {EPYC}"),
    ("<cpu mode='host-model'>" + feature("disable", "acpi") + "</cpu>", f"EPYC {EPYC}".replace("+acpi", "-acpi")),
    ("<cpu mode='host-model'>" + feature("optional", "vmx") + "</cpu>", f"EPYC {EPYC} -vmx"),
    ("<cpu match='minimum'><model>Penryn</model></cpu>", f"EPYC {EPYC}"),
    ("<cpu><model>pentiumpro</model></cpu>", "qemu32 -pni"),
    ("<cpu><model>Opteron_G3</model></cpu>", "Opteron_G3 -monitor"),
    ("<cpu><model>qemu64</model>" + feature("optional", "avx") + "</cpu>", "qemu64 +avx"),
    ("<cpu check='none'><model>Haswell</model></cpu>", "Haswell"),
    ("<cpu mode='maximum'>" + feature("optional", "avx") + "</cpu>", "None ?avx"),
]


@pytest.mark.parametrize(("xml", "expected"), SETTLED)
def test_what_a_guest_is_given(qemu72: Binary, xml: str, expected: str) -> None:
    cpu = read(xml)
    settle(cpu, qemu72)
    assert shown(cpu) == expected
    again = cpu.copy()
    settle(again, qemu72)
    assert again == cpu


REFUSED = [
    (
        "<cpu check='partial'><model>Haswell</model></cpu>",
        c.VIR_ERR_CPU_INCOMPATIBLE,
        "pcid, x2apic, tsc-deadline, hle",
    ),
    (
        "<cpu mode='host-model' check='partial'>" + feature("require", "vmx") + "</cpu>",
        c.VIR_ERR_CPU_INCOMPATIBLE,
        "Host CPU does not provide required features: vmx",
    ),
    (
        "<cpu check='partial'><model>kvm64</model><vendor>Intel</vendor></cpu>",
        c.VIR_ERR_CPU_INCOMPATIBLE,
        "host CPU vendor does not match required CPU vendor Intel",
    ),
    (
        "<cpu><model fallback='forbid'>pentiumpro</model></cpu>",
        c.VIR_ERR_CONFIG_UNSUPPORTED,
        "CPU model pentiumpro is not supported by hypervisor",
    ),
    ("<cpu><model>Foo</model></cpu>", c.VIR_ERR_INTERNAL_ERROR, "Unknown CPU model Foo"),
    (
        "<cpu mode='maximum'>" + feature("require", "zz") + "</cpu>",
        c.VIR_ERR_CONFIG_UNSUPPORTED,
        "unknown CPU feature: zz",
    ),
]


@pytest.mark.parametrize(("xml", "code", "text"), REFUSED)
def test_what_cannot_be_given(qemu72: Binary, xml: str, code: int, text: str) -> None:
    with pytest.raises(VirtError) as caught:
        settle(read(xml), qemu72)
    assert caught.value.code == code
    assert text in caught.value.message


def test_without_what_the_widest_cpu_is(qemu72: Binary) -> None:
    silent = dataclasses.replace(qemu72, widest_cpu={})
    cpu = read("<cpu><model>Penryn</model></cpu>")
    settle(cpu, silent)
    assert cpu.model == "Penryn"
    with pytest.raises(VirtError) as caught:
        settle(read("<cpu mode='host-model'/>"), silent)
    assert caught.value.code == c.VIR_ERR_CONFIG_UNSUPPORTED


def test_the_live_xml_tells_what_the_guest_sees(instance: Instance) -> None:
    more = "<cpu><model>qemu64</model>" + feature("force", "vmx") + feature("disable", "nx") + "</cpu>"
    domain = instance.driver.domain_create_xml(instance.xml("sees", more=more), c.VIR_DOMAIN_START_PAUSED)
    live = instance.driver.domain_get_xml_desc(domain, 0)
    assert "<cpu mode='custom' match='exact' check='full'>" in live
    found = {name: policy for policy, name in re.findall(r"<feature policy='(\w+)' name='(\w+)'/>", live)}
    # TCG has no VMX, whatever was asked for; every guest sees a hypervisor.
    assert found["vmx"] == "disable"
    assert found["nx"] == "disable"
    assert found["hypervisor"] == "require"
    asked = instance.driver.domain_get_xml_desc(domain, c.VIR_DOMAIN_XML_MIGRATABLE)
    assert "check='none'" in asked
    assert feature("force", "vmx") in asked
    assert "hypervisor" not in asked
    instance.driver.domain_destroy(domain)


def test_a_check_that_fails_ends_the_start(instance: Instance) -> None:
    more = "<cpu check='full'><model>qemu64</model></cpu>"
    with pytest.raises(VirtError) as caught:
        instance.driver.domain_create_xml(instance.xml("full", more=more), c.VIR_DOMAIN_START_PAUSED)
    assert caught.value.code == c.VIR_ERR_OPERATION_FAILED
    assert "guest CPU doesn't match specification: extra features: hypervisor" in caught.value.message


def test_the_best_cpu_of_this_host_can_be_had(instance: Instance) -> None:
    more = "<cpu mode='host-model'/>"
    domain = instance.driver.domain_create_xml(instance.xml("best", more=more), c.VIR_DOMAIN_START_PAUSED)
    live = instance.driver.domain_get_xml_desc(domain, 0)
    assert "<cpu mode='custom' match='exact' check='full'>" in live
    assert "<model fallback='forbid'>" in live
    # It was nothing but what there is: so nothing of it was refused.
    assert instance.driver.domain_get_xml_desc(domain, c.VIR_DOMAIN_XML_MIGRATABLE).count("check='full'") == 1
    cpu = re.search(r"<cpu .*</cpu>", live, re.DOTALL)
    assert cpu is not None
    result = instance.driver.connect_compare_hypervisor_cpu(None, None, None, "qemu", cpu[0], 0)
    assert result == c.VIR_CPU_COMPARE_IDENTICAL
    instance.driver.domain_destroy(domain)


def test_procedures(instance: Instance) -> None:
    driver = instance.driver
    penryn = "<cpu><arch>x86_64</arch><model>Penryn</model></cpu>"
    for found in (
        driver.connect_baseline_cpu([penryn], 0),
        driver.connect_baseline_hypervisor_cpu(QEMU, "x86_64", None, "qemu", [penryn], 0),
    ):
        assert found == "<cpu mode='custom' match='exact'>\n  <model fallback='forbid'>Penryn</model>\n</cpu>\n"
    arm = penryn.replace("x86_64", "aarch64").replace("Penryn", "cortex-a53")
    assert "cortex-a53" in driver.connect_baseline_cpu([arm], 0)
    assert driver.connect_compare_cpu(arm, 0) == c.VIR_CPU_COMPARE_INCOMPATIBLE
    with pytest.raises(VirtError) as caught:
        driver.connect_compare_cpu(arm, c.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE)
    assert caught.value.code == c.VIR_ERR_CPU_INCOMPATIBLE
    own = "<cpu mode='host-model'/>"
    with pytest.raises(VirtError) as caught:
        driver.connect_baseline_hypervisor_cpu(None, None, None, None, [penryn, own], 0)
    assert caught.value.detail == "no CPU model specified at index 1"
    with pytest.raises(VirtError) as caught:
        driver.connect_baseline_cpu([], 0)
    assert caught.value.message == "xmlCPUs in virConnectBaselineCPU must not be NULL"


@pytest.mark.parametrize("mode", ["host-model", "host-passthrough", "maximum"])
def test_a_cpu_that_is_asked_about_keeps_its_model(instance: Instance, mode: str) -> None:
    """In a domain's definition most modes have no model; here libvirt compares with it."""
    given = f"<cpu mode='{mode}'><model>qemu64</model><feature name='3dnow'/></cpu>"
    found = instance.driver.connect_baseline_hypervisor_cpu(None, None, None, "qemu", [given], 0)
    assert "<model fallback='forbid'>qemu64</model>" in found
    unknown = given.replace("qemu64", "nosuch")
    with pytest.raises(VirtError, match="Unknown CPU model nosuch"):
        instance.driver.connect_compare_hypervisor_cpu(None, None, None, "qemu", unknown, 0)


def test_a_document_is_a_cpu_before_it_is_held_against_the_schema(instance: Instance) -> None:
    with pytest.raises(VirtError, match="XML does not contain expected 'cpu' element"):
        instance.driver.connect_compare_cpu("<host><cpu/></host>", c.VIR_CONNECT_COMPARE_CPU_VALIDATE_XML)


def test_flags_are_checked(instance: Instance) -> None:
    driver = instance.driver
    for call in (
        lambda: driver.connect_baseline_cpu([], 4),
        lambda: driver.connect_compare_cpu("", 4),
        lambda: driver.connect_baseline_hypervisor_cpu(None, None, None, None, [], 4),
        lambda: driver.connect_compare_hypervisor_cpu(None, None, None, None, "", 4),
    ):
        with pytest.raises(VirtError) as caught:
            call()
        assert "unsupported flags (0x4) in function qemuConnect" in caught.value.message


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs an x86 host")
def test_the_hosts_cpu() -> None:
    processor = hostfacts.processor()
    features = hostcpu._features(processor)
    # The kernel leaves features out, but invents none. Some bits differ between the processors of a machine.
    flags = x86map.names(hostcpu._from_flags(processor.flags))
    assert set(flags) - {"osxsave"} <= set(x86map.names(features)) | {"ht"}
    described = hostcpu.definition()
    model = x86map.models()[described.model or ""]
    assert not model.features & ~features
    assert set(described.policies) == set(x86map.names(features & ~model.features))
