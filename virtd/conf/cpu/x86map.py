"""The features and models of x86 processors, by libvirt's names, as two literal tables.

A set of features is an integer: bit N stands for the N-th feature of FEATURES, so that sets are counted, joined and
compared in one instruction, and listed in the order in which libvirt lists them. This module knows no XML and no
system.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

VENDORS = {"Intel": "GenuineIntel", "AMD": "AuthenticAMD", "Hygon": "HygonGenuine"}
"""Vendors, and how their processors call themselves (CPUID leaf 0)."""

# A line for each register of CPUID: leaf, subleaf, register, then names by bit; a number says which bit comes next.
# Of an MSR (lines "msr"), the number takes the leaf's place. The order of the lines is that of libvirt's lists.
_FEATURES = """
1 0 edx: 0 fpu vme de pse tsc msr pae mce cx8 apic 11 sep mtrr pge mca cmov pat pse36 pn clflush 21 ds acpi mmx fxsr
    sse sse2 ss ht tm ia64 pbe
1 0 ecx: 0 pni pclmuldq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid 12 fma cx16 xtpr pdcm 17 pcid dca sse4.1
    sse4.2 x2apic movbe popcnt tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor
6 0 eax: 2 arat
7 0 ebx: 0 fsgsbase tsc_adjust sgx bmi1 hle avx2 7 smep bmi2 erms invpcid rtm cmt 14 mpx 16 avx512f avx512dq rdseed adx
    smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl
7 0 ecx: 1 avx512vbmi umip pku ospke waitpkg avx512vbmi2 8 gfni vaes vpclmulqdq avx512vnni avx512bitalg
    14 avx512-vpopcntdq 16 la57 22 rdpid 24 bus-lock-detect cldemote 27 movdiri movdir64b 30 sgxlc pks
7 0 edx: 2 avx512-4vnniw avx512-4fmaps fsrm 8 avx512-vp2intersect 10 md-clear 14 serialize 16 tsx-ldtrk 18 pconfig
    arch-lbr 22 amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp 29 arch-capabilities core-capability ssbd
7 1 eax: 4 avx-vnni avx512-bf16
0xd 1 eax: 0 xsaveopt xsavec xgetbv1 xsaves xfd
0xf 1 edx: 1 mbm_total mbm_local
0x12 0 eax: 0 sgx1 sgx2
0x12 0 ebx: 0 sgx-exinfo
0x12 1 eax: 1 sgx-debug sgx-mode64 4 sgx-provisionkey sgx-tokenkey 7 sgx-kss
0x14 0 ecx: 31 intel-pt-lip
0x80000001 0 edx: 11 syscall 20 nx 22 mmxext 25 fxsr_opt pdpe1gb rdtscp 29 lm 3dnowext 3dnow
0x80000001 0 ecx: 0 lahf_lm cmp_legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt
    15 lwp fma4 tce cvt16 nodeid_msr 21 tbm topoext perfctr_core perfctr_nb
0x80000007 0 edx: 8 invtsc
0x80000008 0 ebx: 0 clzero 2 xsaveerptr 9 wbnoinvd 12 ibpb 14 ibrs amd-stibp 24 amd-ssbd virt-ssbd amd-no-ssb
0x8000000a 0 edx: 0 npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists 10 pause-filter
    12 pfthreshold avic 15 v-vmsave-vmload vgif 28 svme-addr-chk
0x10a 0 msr: 0 rdctl-no ibrs-all rsba skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no tsx-ctrl taa-no
0xcf 0 msr: 5 split-lock-detect
"""
# Features that QEMU has no property for.
_NOT_IN_QEMU = "cvt16 pconfig"
# Features whose state cannot be taken to another host.
_UNMIGRATABLE = "invtsc xsaves"
# Features of which guests have nothing.
_HOST_ONLY = "cmt mbm_total mbm_local osxsave ospke"
# QEMU's names, where they differ by more than dashes for underscores and dots.
_QEMU_NAMES = {"sse3": "pni", "pclmulqdq": "pclmuldq", "xd": "nx", "i64": "lm", "ffxsr": "fxsr_opt"}

# A line for each model: name; vendor; signatures (family/models/steppings); what it is chosen for when a processor is
# described ("*": hosts and guests; "host"; "never"); then an older model, if it has all but little of it, with what
# is added, what is taken away (-), and what QEMU had in it once but no longer has (~), so that libvirt always says
# whether it is there.
_MODELS = """
486 - - *: fpu vme pse
pentium - - *: 486 de tsc msr mce cx8 mmx
pentium2 - - *: pentium pae sep mtrr pge mca cmov pat pse36 fxsr
pentium3 - - *: pentium2 sse
pentiumpro - - *: pentium pae apic sep pge cmov pat fxsr sse sse2 -vme
coreduo Intel - *: pentiumpro vme mtrr mca clflush pni monitor nx
n270 Intel - *: coreduo ssse3
core2duo Intel - *: n270 pse36 syscall lm
qemu32 - - *: pentiumpro pni
kvm32 - - *: qemu32 mtrr mca pse36 clflush
cpu64-rhel5 - - never: kvm32 syscall nx lm
cpu64-rhel6 - - never: cpu64-rhel5 cx16 lahf_lm
qemu64 - - *: cpu64-rhel5 cx16 svm
kvm64 - - *: cpu64-rhel5 cx16
Conroe Intel 6/15,22 *: cpu64-rhel5 ssse3 lahf_lm
Penryn Intel 6/23,29 *: Conroe cx16 sse4.1
Nehalem Intel 6/26,30,31,46 *: Penryn sse4.2 popcnt
Nehalem-IBRS Intel 6/26,30,31,46 *: Nehalem spec-ctrl
Westmere Intel 6/44,47,37 *: Nehalem aes
Westmere-IBRS Intel 6/44 *: Westmere spec-ctrl
SandyBridge Intel 6/42,45 *: Westmere pclmuldq x2apic tsc-deadline xsave avx rdtscp
SandyBridge-IBRS Intel 6/42,45 *: SandyBridge spec-ctrl
IvyBridge Intel 6/58,62 *: SandyBridge vme f16c rdrand fsgsbase smep erms
IvyBridge-IBRS Intel 6/58,62 *: IvyBridge spec-ctrl
Haswell-noTSX Intel 6/60,63,69,70 *: SandyBridge fma pcid movbe fsgsbase bmi1 avx2 smep bmi2 erms invpcid
Haswell-noTSX-IBRS Intel 6/60,63,69,70 *: Haswell-noTSX spec-ctrl
Haswell Intel 6/60,63,69,70 *: Haswell-noTSX hle rtm
Haswell-IBRS Intel 6/60,63,69,70 *: Haswell spec-ctrl
Broadwell-noTSX Intel 6/61,71,79,86 *: Haswell-noTSX rdseed adx smap 3dnowprefetch
Broadwell-noTSX-IBRS Intel 6/61,71,79,86 *: Broadwell-noTSX spec-ctrl
Broadwell Intel 6/61,71,79,86 *: Broadwell-noTSX hle rtm
Broadwell-IBRS Intel 6/61,71,79,86 *: Broadwell spec-ctrl
Skylake-Client Intel 6/94,78,142,158 *: Broadwell vme f16c rdrand arat mpx xsaveopt xsavec xgetbv1 abm
Skylake-Client-IBRS Intel 6/94,78,142,158 *: Skylake-Client spec-ctrl
Skylake-Client-noTSX-IBRS Intel 6/94,78,142,158 host: Skylake-Client-IBRS -hle -rtm
Skylake-Server Intel 6/85/0-4 *: Skylake-Client avx512f avx512dq clwb avx512cd avx512bw avx512vl pdpe1gb
Skylake-Server-IBRS Intel 6/85/0-4 *: Skylake-Server spec-ctrl
Skylake-Server-noTSX-IBRS Intel 6/85/0-4 host: Skylake-Server-IBRS -hle -rtm
Cascadelake-Server Intel 6/85/5-7 *: Skylake-Server-IBRS clflushopt avx512vnni ssbd
Cascadelake-Server-noTSX Intel 6/85/5-7 host: Skylake-Server-noTSX-IBRS clflushopt avx512vnni ssbd
Icelake-Client Intel 6/126 *: Skylake-Client-IBRS avx512vbmi umip pku avx512vbmi2 gfni vaes vpclmulqdq avx512vnni
    avx512bitalg avx512-vpopcntdq ssbd wbnoinvd ~intel-pt
Icelake-Client-noTSX Intel 6/126 host: Icelake-Client -hle -rtm ~intel-pt
Icelake-Server Intel 6/106 *: Icelake-Client avx512f avx512dq clflushopt clwb avx512cd avx512bw avx512vl la57
    pdpe1gb ~intel-pt
Icelake-Server-noTSX Intel 6/106 host: Icelake-Server -hle -rtm ~intel-pt
Cooperlake Intel 6/85/10-11 *: Cascadelake-Server pku stibp arch-capabilities avx512-bf16 rdctl-no ibrs-all
    skip-l1dfl-vmentry mds-no pschange-mc-no taa-no -mpx
Snowridge Intel 6/134 *: IvyBridge-IBRS movbe arat rdseed smap clflushopt clwb sha-ni umip gfni cldemote movdiri
    movdir64b arch-capabilities core-capability ssbd xsaveopt xsavec xgetbv1 pdpe1gb 3dnowprefetch split-lock-detect
    -avx -f16c
athlon AMD - *: pentiumpro vme mtrr pse36 mmxext 3dnowext 3dnow
phenom AMD - *: cpu64-rhel5 monitor mmxext fxsr_opt 3dnowext 3dnow svm
Opteron_G1 AMD 15/6 *: cpu64-rhel5
Opteron_G2 AMD 15/6 *: qemu64 rdtscp lahf_lm
Opteron_G3 AMD 15/6 *: Opteron_G2 popcnt abm sse4a misalignsse ~monitor
Opteron_G4 AMD 21/1 *: Opteron_G3 pclmuldq ssse3 sse4.1 sse4.2 aes xsave avx pdpe1gb 3dnowprefetch xop fma4
Opteron_G5 AMD 21/2 *: Opteron_G4 fma f16c tbm
EPYC AMD 23/1 *: Opteron_G4 vme fma movbe f16c rdrand arat fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt
    sha-ni xsaveopt xsavec xgetbv1 mmxext fxsr_opt cr8legacy osvw -xop -fma4 ~monitor
EPYC-IBPB AMD 23/1 *: EPYC ibpb ~monitor
EPYC-Rome AMD 23/49 *: EPYC-IBPB clwb umip rdpid perfctr_core clzero xsaveerptr wbnoinvd amd-stibp npt nrip-save
EPYC-Milan AMD 25/1 *: EPYC-Rome pcid erms invpcid pku fsrm xsaves ibrs amd-ssbd svme-addr-chk
Dhyana Hygon 24/0 *: EPYC-IBPB -pclmuldq -aes -sha-ni ~monitor
"""


class Place(NamedTuple):
    """Where the processor says that it has a feature."""

    leaf: int  # of CPUID, or the number of an MSR
    subleaf: int
    register: str  # 'eax', 'ebx', 'ecx', 'edx', or 'msr'
    bit: int


class Signature(NamedTuple):
    """A family and model of processors, of some steppings or of all."""

    family: int
    model: int
    steppings: range | None


class Model(NamedTuple):
    """A CPU model."""

    name: str
    vendor: str | None
    signatures: tuple[Signature, ...]
    for_hosts: bool
    for_guests: bool
    features: int
    dropped: int  # what QEMU no longer has in it


@cache
def features() -> dict[str, Place]:
    """All features in order, and where each stands."""
    found: dict[str, Place] = {}
    for line in _lines(_FEATURES):
        place, _, names = line.partition(":")
        leaf, subleaf, register = place.split()
        bit = 0
        for word in names.split():
            if word.isdigit():
                bit = int(word)
            else:
                found[word] = Place(int(leaf, 0), int(subleaf), register, bit)
                bit += 1
    return found


@cache
def bits() -> dict[str, int]:
    """Each feature as a set of one."""
    return {name: 1 << number for number, name in enumerate(features())}


@cache
def models() -> dict[str, Model]:
    """All models, in libvirt's order."""
    found: dict[str, Model] = {}
    for line in _lines(_MODELS):
        head, _, words = line.partition(": ")
        name, vendor, signatures, purpose = head.split()
        has = dropped = 0
        for word in words.split():
            if word in found:
                has = found[word].features
            elif word[0] == "-":
                has &= ~bits()[word[1:]]
            elif word[0] == "~":
                dropped |= bits()[word[1:]]
            else:
                has |= bits()[word]
        found[name] = Model(
            name,
            None if vendor == "-" else vendor,
            () if signatures == "-" else tuple(_signatures(signatures)),
            for_hosts=purpose != "never",
            for_guests=purpose == "*",
            features=has,
            dropped=dropped,
        )
    return found


@cache
def unmigratable() -> int:
    """The features that bind a guest to its host."""
    return feature_set(_UNMIGRATABLE.split())


@cache
def host_only() -> int:
    """The features that no guest can have."""
    return feature_set(_HOST_ONLY.split())


@cache
def without_name_in_qemu() -> int:
    """The features that no guest of QEMU can have."""
    return feature_set(_NOT_IN_QEMU.split())


@cache
def _from_qemu() -> dict[str, int]:
    return {_dashed(name): bit for name, bit in bits().items()}


def feature_set(names: Iterable[str]) -> int:
    """The set of some features.

    Raises:
        KeyError: of a name that is none.
    """
    return sum(bits()[name] for name in set(names))


def from_registers(registers: Mapping[tuple[int, int, str], int]) -> int:
    """The set of features that a processor shows in its registers, given by leaf, subleaf and name."""
    found = 0
    for name, place in features().items():
        if registers.get(place[:3], 0) >> place.bit & 1:
            found |= bits()[name]
    return found


def of_msr(number: int | None = None) -> int:
    """The features that stand in an MSR, or in any."""
    return feature_set(
        name for name, place in features().items() if place.register == "msr" and number in (None, place.leaf)
    )


def from_qemu(names: Iterable[str]) -> int:
    """The set of features that QEMU calls so; names that are not those of features are left out."""
    found = 0
    for name in names:
        found |= _from_qemu().get(_dashed(_QEMU_NAMES.get(name, name)), 0)
    return found


def names(wanted: int) -> list[str]:
    """The names of the features in a set, in libvirt's order."""
    return [name for name, bit in bits().items() if wanted & bit]


def _dashed(name: str) -> str:
    return name.replace("_", "-").replace(".", "-")


def _lines(table: str) -> list[str]:
    return table.replace("\n    ", " ").strip().split("\n")


def _signatures(text: str) -> Iterable[Signature]:
    family, numbers, *rest = text.split("/")
    steppings = None
    if rest:
        first, _, last = rest[0].partition("-")
        steppings = range(int(first), int(last) + 1)
    return [Signature(int(family), int(number), steppings) for number in numbers.split(",")]
