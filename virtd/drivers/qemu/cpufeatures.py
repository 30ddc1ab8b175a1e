"""CPU models and features by libvirt's names; the host's features from the flags in /proc/cpuinfo.

The host's processor is described as the model kvm64 (the smallest with 64 bits, which every processor contains) with
all that it has beyond that.
"""

from virtd.drivers.qemu.hostfacts import Processor

# The models that libvirt knows for x86, in its order, by vendor.
_MODELS = (
    ("unknown", "486 pentium pentium2 pentium3 pentiumpro"),
    ("Intel", "coreduo n270 core2duo"),
    ("unknown", "qemu32 kvm32 cpu64-rhel5 cpu64-rhel6 qemu64 kvm64"),
    ("Intel", "Conroe Penryn Nehalem Nehalem-IBRS Westmere Westmere-IBRS SandyBridge SandyBridge-IBRS IvyBridge"),
    ("Intel", "IvyBridge-IBRS Haswell-noTSX Haswell-noTSX-IBRS Haswell Haswell-IBRS Broadwell-noTSX"),
    ("Intel", "Broadwell-noTSX-IBRS Broadwell Broadwell-IBRS Skylake-Client Skylake-Client-IBRS"),
    ("Intel", "Skylake-Client-noTSX-IBRS Skylake-Server Skylake-Server-IBRS Skylake-Server-noTSX-IBRS"),
    ("Intel", "Cascadelake-Server Cascadelake-Server-noTSX Icelake-Client Icelake-Client-noTSX Icelake-Server"),
    ("Intel", "Icelake-Server-noTSX Cooperlake Snowridge"),
    ("AMD", "athlon phenom Opteron_G1 Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5 EPYC EPYC-IBPB EPYC-Rome EPYC-Milan"),
    ("Hygon", "Dhyana"),
)
VENDORS = {name: vendor for vendor, names in _MODELS for name in names.split()}
"""The vendor of each model, in libvirt's order."""
BASE_MODEL = "kvm64"
# What kvm64 has, by libvirt's names.
_BASE = frozenset(
    "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 pni cx16 syscall nx "  # noqa: SIM905
    "lm".split()
)
# In the order in which libvirt lists them (by CPUID leaf and bit); the kernel's name where it is another one.
_FEATURES = """
vme ds acpi ss ht tm pbe
pclmuldq=pclmulqdq dtes64 monitor ds_cpl=ds_cpl vmx smx est tm2 ssse3 cid fma xtpr pdcm pcid dca sse4.1=sse4_1
sse4.2=sse4_2 x2apic movbe popcnt tsc-deadline=tsc_deadline_timer aes xsave osxsave=xsave avx f16c rdrand hypervisor
arat
fsgsbase tsc_adjust bmi1 hle avx2 smep bmi2 erms invpcid rtm cmt=cqm mpx avx512f avx512dq rdseed adx smap
avx512ifma pcommit clflushopt clwb intel-pt=intel_pt avx512pf avx512er avx512cd sha-ni=sha_ni avx512bw avx512vl
avx512vbmi umip pku ospke waitpkg avx512vbmi2=avx512_vbmi2 gfni vaes vpclmulqdq avx512vnni=avx512_vnni
avx512bitalg=avx512_bitalg avx512-vpopcntdq=avx512_vpopcntdq la57 rdpid bus-lock-detect=bus_lock_detect cldemote movdiri
movdir64b pks
avx512-4vnniw=avx512_4vnniw avx512-4fmaps=avx512_4fmaps fsrm avx512-vp2intersect=avx512_vp2intersect md-clear=md_clear
serialize tsx-ldtrk=tsxldtrk amx-bf16=amx_bf16 avx512-fp16=avx512_fp16 amx-tile=amx_tile amx-int8=amx_int8
spec-ctrl=spec_ctrl stibp flush-l1d=flush_l1d arch-capabilities=arch_capabilities core-capability=core_capabilities
ssbd
avx-vnni=avx_vnni avx512-bf16=avx512_bf16
xsaveopt xsavec xgetbv1 xsaves
mmxext=mmxext fxsr_opt pdpe1gb rdtscp 3dnowext 3dnow
lahf_lm cmp_legacy svm extapic cr8legacy=cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt lwp
fma4 tce nodeid_msr tbm topoext perfctr_core perfctr_nb invtsc=nonstop_tsc
clzero xsaveerptr wbnoinvd ibpb amd-ssbd=amd_ssbd virt-ssbd=virt_ssbd amd-no-ssb=ssb_no
npt lbrv svm-lock=svm_lock nrip-save=nrip_save tsc-scale=tsc_scale vmcb-clean=vmcb_clean flushbyasid decodeassists
pause-filter=pausefilter pfthreshold avic v-vmsave-vmload=v_vmsave_vmload vgif
"""


def beyond_base(processor: Processor) -> list[str]:
    """The features that a processor has beyond the base model, by libvirt's names and in its order."""
    pairs = ((name, kernel or name) for name, _, kernel in (word.partition("=") for word in _FEATURES.split()))
    return [name for name, kernel in pairs if name not in _BASE and kernel in processor.flags]
