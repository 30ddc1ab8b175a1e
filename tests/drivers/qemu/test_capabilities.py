"""What the instance says it can run: against this host, and the errors of libvirt."""

import os
import uuid
from pathlib import Path

import pytest
from lxml import etree

from tests.drivers.qemu.commandline import QEMU, domain_xml
from virtd import constants as c
from virtd.conf.domain import parse_domain
from virtd.drivers.qemu.host import capabilities, hostfacts, kvm
from virtd.drivers.qemu.host.capabilities import Capabilities
from virtd.errors import VirtError
from virtd.state import paths

pytestmark = pytest.mark.skipif(not os.path.exists(QEMU), reason="needs QEMU")
BROKEN = kvm.Kvm(False, "/dev/kvm exists but did not run a vCPU within 2 s")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Capabilities:
    """One instance for all tests that only ask."""
    return Capabilities(paths.below(str(tmp_path_factory.mktemp("root"))))


@pytest.fixture(autouse=True)
def _broken_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on every host: KVM does not work."""
    monkeypatch.setattr(kvm, "check", lambda cache: BROKEN)


def test_the_host(shared: Capabilities) -> None:
    doc = etree.fromstring(shared.xml())
    assert doc.findtext("host/uuid") == shared.host_uuid()
    assert doc.findtext("host/cpu/arch") == os.uname().machine
    place = doc.find("host/cpu/topology")
    assert place is not None
    cpus = len(os.sched_getaffinity(0))
    assert len(doc.findall("host/topology/cells/cell/cpus/cpu")) >= cpus
    assert len(doc.findall("host/cpu/pages")) >= 1
    assert doc.findtext("host/secmodel/model") == "none"


def test_guests_without_kvm(shared: Capabilities) -> None:
    doc = etree.fromstring(shared.xml())
    guest = next(one for one in doc.findall("guest") if one.find("arch[@name='x86_64']") is not None)
    assert guest.findtext("os_type") == "hvm"
    assert guest.findtext("arch/wordsize") == "64"
    assert guest.findtext("arch/emulator") == QEMU
    machines = guest.findall("arch/machine")
    assert str(machines[0].text).startswith("pc-i440fx-")
    assert (machines[1].text, machines[1].get("canonical")) == ("pc", machines[0].text)
    assert "none" not in [machine.text for machine in machines]
    assert [domain.get("type") for domain in guest.findall("arch/domain")] == ["qemu"]


def test_guests_with_kvm(shared: Capabilities, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "check", lambda cache: kvm.Kvm(True, ""))
    monkeypatch.setattr(kvm, "DEVICE", os.devnull)  # there is another device now
    doc = etree.fromstring(shared.xml())
    assert {domain.get("type") for domain in doc.findall("guest/arch/domain")} == {"qemu", "kvm"}


def test_the_document_is_indented_as_libvirts(shared: Capabilities) -> None:
    lines = shared.xml().splitlines()
    assert lines[:4] == ["<capabilities>", "", "  <host>", f"    <uuid>{shared.host_uuid()}</uuid>"]
    assert "    <power_management/>" in lines
    assert lines[-2:] == ["", "</capabilities>"]


@pytest.mark.parametrize(
    ("machine", "buses"), [("pc", "ide fdc scsi virtio usb sata"), ("q35", "fdc scsi virtio usb sata")]
)
def test_what_a_guest_can_have(shared: Capabilities, machine: str, buses: str) -> None:
    doc = etree.fromstring(shared.domain_xml(QEMU, "x86_64", machine, "qemu"))
    assert doc.findtext("path") == QEMU
    assert doc.findtext("domain") == "qemu"
    assert str(doc.findtext("machine")).startswith(f"pc-{'i440fx' if machine == 'pc' else 'q35'}-")
    assert [value.text for value in doc.findall("devices/disk/enum[@name='bus']/value")] == buses.split()
    assert doc.find("cpu/mode[@name='host-passthrough'][@supported='no']") is not None
    models = {model.text: model.get("usable") for model in doc.findall("cpu/mode[@name='custom']/model")}
    assert models["qemu64"] == "yes"
    assert models["Haswell"] == "no"
    assert not {"max", "base", "host", "qemu64-v1"} & models.keys()
    assert "virtio" in [value.text for value in doc.findall("devices/video/enum/value")]


def test_domain_capabilities_choose_what_is_not_given(shared: Capabilities) -> None:
    doc = etree.fromstring(shared.domain_xml(None, None, None, None))
    assert doc.findtext("path") == QEMU
    assert doc.findtext("domain") == "qemu"
    assert str(doc.findtext("machine")).startswith("pc-i440fx-")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((None, None, None, "foo"), c.VIR_ERR_INVALID_ARG, "unknown virttype: foo"),
        ((None, "foo", None, None), c.VIR_ERR_INVALID_ARG, "unknown architecture: foo"),
        ((None, "s390x", None, None), c.VIR_ERR_CONFIG_UNSUPPORTED, "unable to find any emulator to serve 's390x'"),
        ((QEMU, "aarch64", None, None), c.VIR_ERR_INVALID_ARG, "architecture from emulator 'x86_64' doesn't match"),
        ((None, None, "foo", None), c.VIR_ERR_INVALID_ARG, f"the machine 'foo' is not supported by emulator '{QEMU}'"),
        (
            (None, None, "none", None),
            c.VIR_ERR_INVALID_ARG,
            f"the machine 'none' is not supported by emulator '{QEMU}'",
        ),
        ((None, None, None, "xen"), c.VIR_ERR_INVALID_ARG, f"the accel 'tcg' is not supported by '{QEMU}' on"),
        (
            (None, None, None, "kvm"),
            c.VIR_ERR_INVALID_ARG,
            f"'kvm' is not supported by '{QEMU}' on this host: {BROKEN.reason}",
        ),
        (("/nonexistent", None, None, None), c.VIR_ERR_SYSTEM_ERROR, "Cannot check QEMU binary /nonexistent"),
    ],
)
def test_what_does_not_fit(
    shared: Capabilities, arguments: tuple[str | None, str | None, str | None, str | None], code: int, text: str
) -> None:
    with pytest.raises(VirtError) as caught:
        shared.domain_xml(*arguments)
    assert caught.value.code == code
    assert text in caught.value.message


def test_a_guest_that_needs_kvm_where_there_is_none(shared: Capabilities) -> None:
    config = parse_domain(domain_xml(), shared.host())
    assert shared.binary_for(config).path == QEMU
    config.type = "kvm"
    with pytest.raises(VirtError, match="did not run a vCPU within 2 s") as caught:
        shared.binary_for(config)
    assert caught.value.code == c.VIR_ERR_CONFIG_UNSUPPORTED


def test_kvm_is_not_looked_for_before_somebody_asks_for_it(
    shared: Capabilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(cache: str) -> kvm.Kvm:
        raise AssertionError

    monkeypatch.setattr(kvm, "check", asked)
    config = parse_domain(domain_xml(), shared.host())
    shared.binary_for(config)
    with pytest.raises(AssertionError):
        parse_domain(domain_xml(kind="kvm"), shared.host())


def test_the_models_view_of_an_emulator(shared: Capabilities) -> None:
    host = shared.host()
    assert host.emulator_for("x86_64") == QEMU
    found = host.emulator(QEMU)
    assert found.arches == ("x86_64", "i686")
    assert found.default_machine == "pc"
    assert found.machines["pc"] is found.machines[found.machines["pc"].name]
    assert found.machines["pc"].default_cpu == "qemu64"
    assert found.has("virtio-net-pci")
    assert host.emulator(QEMU) is found
    with pytest.raises(VirtError, match="No emulator found for arch 'vax'"):
        host.emulator_for("vax")


def test_a_uuid_of_the_host_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = open

    def no_firmware(path: str, *arguments: object, **options: object) -> object:
        if "dmi" in str(path):
            raise FileNotFoundError
        return real(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(capabilities, "open", no_firmware, raising=False)
    first = Capabilities(paths.below(str(tmp_path))).host_uuid()
    assert uuid.UUID(first)
    assert Capabilities(paths.below(str(tmp_path))).host_uuid() == first


def test_names_of_cpu_models(shared: Capabilities) -> None:
    names = shared.cpu_model_names("x86_64")
    assert names[:2] == ["486", "pentium"]
    assert {"EPYC", "Haswell", "kvm64"} <= set(names)
    assert shared.cpu_model_names("aarch64") == []
    assert shared.cpu_model_names("ppc64le")[:2] == ["POWER6", "POWER7"]
    with pytest.raises(VirtError, match="'riscv64' architecture is not supported by CPU driver"):
        shared.cpu_model_names("riscv64")
    with pytest.raises(VirtError, match="cannot find architecture foo"):
        shared.cpu_model_names("foo")


def test_version_and_node(shared: Capabilities) -> None:
    assert shared.version() >= 5_002_000
    model, kib, cpus, mhz, nodes, sockets, cores, threads = shared.node_info()
    assert model == os.uname().machine.encode()
    assert kib > 100_000
    assert cpus >= len(os.sched_getaffinity(0))
    assert mhz >= 0
    assert nodes * sockets * cores * threads >= cpus


def lay_out(root: Path, cpus: list[tuple[int, int, int, str, int]]) -> None:
    """A /sys with CPUs (number, socket, core, siblings, node)."""
    base = root / "devices/system"
    for number, socket, core, siblings, _ in cpus:
        place = base / f"cpu/cpu{number}/topology"
        place.mkdir(parents=True)
        for name, value in (("physical_package_id", socket), ("core_id", core), ("thread_siblings_list", siblings)):
            (place / name).write_text(f"{value}\n")
    (base / "cpu/online").write_text(f"0-{len(cpus) - 1}\n")
    nodes = sorted({cpu[4] for cpu in cpus})
    for node in nodes:
        (base / f"node/node{node}").mkdir(parents=True)
        mine = [str(cpu[0]) for cpu in cpus if cpu[4] == node]
        (base / f"node/node{node}/cpulist").write_text(",".join(mine) + "\n")
        (base / f"node/node{node}/meminfo").write_text(f"Node {node} MemTotal:  {1000 + node} kB\n")
        (base / f"node/node{node}/distance").write_text(" ".join("10" if node == one else "21" for one in nodes))
    (base / "node/online").write_text(",".join(map(str, nodes)) + "\n")


def test_two_nodes_with_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostfacts, "SYS", str(tmp_path))
    lay_out(
        tmp_path,
        [
            *((n, 0, n // 2, f"{n // 2 * 2}-{n // 2 * 2 + 1}", 0) for n in range(4)),
            *((n, 1, n // 2, f"{n // 2 * 2}-{n // 2 * 2 + 1}", 1) for n in range(4, 8)),
        ],
    )
    found = hostfacts.topology()
    assert (found.nodes, found.sockets, found.cores, found.threads) == (2, 1, 2, 2)
    assert found.cpus[5].siblings == (4, 5)
    assert hostfacts.memory_kib() == 2001
    assert hostfacts.nodes()[1].distances == ((0, 21), (1, 10))


def test_an_uneven_arrangement_counts_as_one_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostfacts, "SYS", str(tmp_path))
    lay_out(tmp_path, [(0, 0, 0, "0-1", 0), (1, 0, 0, "0-1", 0), (2, 0, 1, "2", 0)])
    found = hostfacts.topology()
    assert (found.nodes, found.sockets, found.cores, found.threads) == (1, 1, 3, 1)


def test_sets_of_numbers() -> None:
    assert hostfacts.ranges("0-3,8\n") == [0, 1, 2, 3, 8]
    assert hostfacts.ranges("") == []
