"""The arithmetic of x86 CPU models against answers of libvirt 9.0.0.

baselines.json: CPUs and what libvirt's baseline of them is, of hosts' CPUs and of those of guests of QEMU 7.2 without
KVM, whose models qemu-7.2-tcg.json describes.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from virtd import constants as c
from virtd.conf.cpu import generic, x86, x86map
from virtd.conf.cpu.document import CpuDefinition, format_cpu, parse_cpu
from virtd.errors import VirtError

HERE = Path(__file__).parent
BASELINES = json.loads((HERE / "baselines.json").read_text())
QEMU = json.loads((HERE / "qemu-7.2-tcg.json").read_text())
BLOCKERS = {name: x86map.from_qemu(features) for name, features in QEMU["blockers"].items()}
# What a guest of that QEMU can have at most, as domain capabilities show it.
REQUIRED = (
    "acpi ss monitor hypervisor erms mpx pcommit clwb umip pku vaes la57 pks 3dnowext 3dnow npt vgif svme-addr-chk"
)
DISABLED = "vme rdseed sha-ni xsavec fxsr_opt misalignsse 3dnowprefetch osvw topoext nrip-save"


def host(model: str, *features: str, vendor: str | None = None, arch: str = "x86_64") -> str:
    """The XML of a host's CPU."""
    named = "".join(f"<feature name='{name}'/>" for name in features)
    maker = f"<vendor>{vendor}</vendor>" if vendor else ""
    return f"<cpu><arch>{arch}</arch><model>{model}</model>{maker}{named}</cpu>"


@pytest.mark.parametrize("case", BASELINES, ids=[str(number) for number in range(len(BASELINES))])
def test_baseline(case: dict[str, Any]) -> None:
    def compute() -> str:
        hosts = case["of"] == "hosts"
        cpus = [parse_cpu(xml, host=hosts) for xml in case["cpus"]]
        migratable = bool(case["flags"] & c.VIR_CONNECT_BASELINE_CPU_MIGRATABLE)
        found = x86.baseline(cpus, blockers=None if hosts else BLOCKERS, migratable=migratable)
        if case["flags"] & c.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES:
            x86.expand(found)
        return format_cpu(found)

    if isinstance(case["result"], str):
        assert compute() == case["result"]
    else:
        with pytest.raises(VirtError) as caught:
            compute()
        assert [caught.value.code, caught.value.domain, caught.value.message] == case["result"]


def test_the_best_cpu_of_guests_without_kvm() -> None:
    widest = QEMU["widest"]
    features = x86map.from_qemu(name for name, value in widest.items() if value is True)
    signature = x86.Signature(widest["family"], widest["model"], widest["stepping"])
    found = x86.decode(features, vendor="AMD", signature=signature, blockers=BLOCKERS)
    assert found.model == "EPYC"
    assert x86map.names(found.required) == REQUIRED.split()
    assert x86map.names(found.disabled) == DISABLED.split()


def test_a_host_has_all_that_its_model_has() -> None:
    # Milan without SVM, as a virtual host may have it: no model of AMD's is contained in it.
    milan = x86map.models()["EPYC-Milan"]
    features = milan.features & ~x86map.feature_set(["svm", "npt"])
    signature = x86.Signature(25, 1, 1)
    found = x86.decode(features, vendor="AMD", signature=signature, guest=False)
    assert found.model in ("Opteron_G1", "kvm64")
    assert found.disabled == 0
    assert x86.decode(features, vendor="AMD", signature=signature).model == "EPYC-Milan"


def test_the_signature_decides() -> None:
    features = x86map.models()["Broadwell-noTSX"].features
    for model, name in ((63, "Haswell-noTSX"), (61, "Broadwell-noTSX")):
        found = x86.decode(features, vendor="Intel", signature=x86.Signature(6, model, 2), guest=False)
        assert found.model == name


def test_steppings_tell_models_apart() -> None:
    features = x86map.models()["Cascadelake-Server"].features
    for stepping, name in ((4, "Skylake-Server-IBRS"), (7, "Cascadelake-Server")):
        signature = x86.Signature(6, 85, stepping)
        assert x86.decode(features, vendor="Intel", signature=signature, guest=False).model == name


COMPARISONS = [
    (host("kvm64"), c.VIR_CPU_COMPARE_SUPERSET, None),
    (host("Penryn", "vmx", vendor="Intel"), c.VIR_CPU_COMPARE_IDENTICAL, None),
    (host("Penryn", "avx", "aes"), None, "Host CPU does not provide required features: aes, avx"),
    (host("Penryn", vendor="AMD"), None, "host CPU vendor does not match required CPU vendor AMD"),
    (host("cortex-a53", arch="aarch64"), None, "CPU arch aarch64 does not match host arch"),
    ("<cpu mode='host-model'/>", c.VIR_CPU_COMPARE_SUPERSET, None),
    ("<cpu mode='host-model'><feature policy='require' name='svm'/></cpu>", None, "required features: svm"),
    ("<cpu><model>kvm64</model><feature policy='forbid' name='vmx'/></cpu>", None, "forbidden features: vmx"),
    ("<cpu match='strict'><model>Penryn</model></cpu>", None, "strictly match guest CPU: Extra features: vmx"),
    (
        "<cpu match='strict'><model>Penryn</model><feature policy='optional' name='vmx'/></cpu>",
        c.VIR_CPU_COMPARE_IDENTICAL,
        None,
    ),
]


@pytest.mark.parametrize(("xml", "result", "reason"), COMPARISONS)
def test_compare(xml: str, result: int | None, reason: str | None) -> None:
    here = parse_cpu(host("Penryn", "vmx", vendor="Intel"), host=True)
    cpu = parse_cpu(xml, host=False)
    found = x86.incompatibility(here, cpu)
    if reason is not None:
        assert found is not None
        assert reason in found
    else:
        assert found is None
        exceeds = c.VIR_CPU_COMPARE_SUPERSET if x86.exceeds(here, cpu) else c.VIR_CPU_COMPARE_IDENTICAL
        assert exceeds == result


REFUSED = [
    ("", c.VIR_ERR_XML_DETAIL, "(CPU_definition):1: Document is empty"),
    ("<foo/>", c.VIR_ERR_XML_ERROR, "XML does not contain expected 'cpu' element"),
    ("<cpu><model>Penryn</model></cpu>", c.VIR_ERR_XML_ERROR, "Missing CPU architecture"),
    ("<cpu><arch>x86_64</arch></cpu>", c.VIR_ERR_XML_ERROR, "Missing CPU model name"),
    (host("Penryn", arch="zz"), c.VIR_ERR_CONFIG_UNSUPPORTED, "Unknown architecture zz"),
    ("<cpu mode='host-model'/>", c.VIR_ERR_CONFIG_UNSUPPORTED, "Attribute mode is only allowed for guest CPU"),
    (host("Penryn", "vmx", "vmx"), c.VIR_ERR_XML_ERROR, "CPU feature 'vmx' specified more than once"),
    (host("Penryn", "").replace("name=''", ""), c.VIR_ERR_XML_ERROR, "Invalid CPU feature name"),
]


@pytest.mark.parametrize(("xml", "code", "text"), REFUSED)
def test_refused(xml: str, code: int, text: str) -> None:
    with pytest.raises(VirtError) as caught:
        parse_cpu(xml, host=True)
    assert (caught.value.code, caught.value.domain) == (code, c.VIR_FROM_CPU)
    assert text in caught.value.message


def test_other_architectures() -> None:
    def models(arch: str, *names: str) -> list[CpuDefinition]:
        return [parse_cpu(host(name, arch=arch), host=True) for name in names]

    assert generic.baseline(models("ppc64", "POWER8", "POWER8")).fallback == "forbid"
    assert generic.baseline(models("aarch64", "cortex-a53", "cortex-a57")).model == "cortex-a53"
    for arch, names, code, text in (
        ("ppc64", ("POWER8", "POWER7"), c.VIR_ERR_OPERATION_FAILED, "CPUs are incompatible"),
        ("ppc64le", ("Foo",), c.VIR_ERR_INTERNAL_ERROR, "Unknown CPU model Foo"),
        ("s390x", ("z13",), c.VIR_ERR_NO_SUPPORT, "cannot compute baseline CPU of s390x architecture"),
        ("riscv64", ("x",), c.VIR_ERR_NO_SUPPORT, "'riscv64' architecture is not supported by CPU driver"),
    ):
        with pytest.raises(VirtError) as caught:
            generic.baseline(models(arch, *names))
        assert caught.value.code == code
        assert text in caught.value.message


def test_the_tables_are_sound() -> None:
    places = list(x86map.features().values())
    assert len(set(places)) == len(places)
    assert all(place.bit < 32 for place in places)
    for model in x86map.models().values():
        assert model.vendor is None or model.vendor in x86map.VENDORS
        assert model.features
        assert not model.features & model.dropped
    assert x86map.names(x86map.feature_set(["vmx", "fpu"])) == ["fpu", "vmx"]
    assert x86map.from_qemu(["sse3", "lahf-lm", "nonsense"]) == x86map.feature_set(["pni", "lahf_lm"])


@pytest.mark.skipif(not Path("/usr/share/libvirt/cpu_map/x86_features.xml").exists(), reason="needs libvirt's own map")
def test_the_tables_agree_with_the_libvirt_of_this_host() -> None:
    from lxml import etree

    for feature in etree.parse("/usr/share/libvirt/cpu_map/x86_features.xml").getroot().iter("feature"):
        place = x86map.features().get(feature.get("name") or "")
        word = feature.find("cpuid")
        if place is None or word is None:
            continue  # of a newer libvirt
        assert (place.leaf, place.subleaf) == (int(word.get("eax_in") or "", 0), int(word.get("ecx_in") or "0", 0))
        assert int(word.get(place.register) or "0", 0) == 1 << place.bit
