"""Emulated TPMs: an swtpm beside QEMU, which ends with it; its state outlives both.

swtpm and QEMU are given the two ends of a socket pair: there is no path, no waiting for a socket to appear, and when
either process ends the other one sees it. The supervisor starts swtpm, since it is there as long as the guest.
"""

import os
import shutil
import socket

from virtd import constants as c
from virtd import deadlines
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.tpm import EmulatorTpm
from virtd.drivers.qemu.run import confine
from virtd.drivers.qemu.run.helpers import Helper, program
from virtd.errors import VirtError
from virtd.state import files

SETUP_SECONDS = 30.0  # making keys takes a second, on a busy machine more
_VERSIONS = {"2.0": "tpm2", "1.2": "tpm1.2"}


def emulator(config: Config) -> EmulatorTpm | None:
    """The emulated TPM of a configuration, if it has one."""
    return next((tpm.backend for tpm in config.tpms if isinstance(tpm.backend, EmulatorTpm)), None)


def state_directory(base: str, uuid: str) -> str:
    """Where the state of a guest's TPM is kept.

    Args:
        base: the instance's state directory.
        uuid: the guest's.
    """
    return f"{base}/swtpm/{uuid}"


def prepare(backend: EmulatorTpm, directory: str, log_path: str, user: confine.User | None) -> tuple[Helper, int]:
    """Make a TPM's state unless there is one, and the socket pair.

    Args:
        backend: the TPM.
        directory: where its state is kept (state_directory()).
        log_path: the guest's log, which both programs write to.
        user: who it runs as; None for who runs this.

    Returns:
        The program that the supervisor starts, and QEMU's end of the socket pair.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED, swtpm is not installed; VIR_ERR_INTERNAL_ERROR, it refuses.
    """
    version = backend.version or "2.0"
    kind = _VERSIONS[version]
    state = f"{directory}/{kind.replace('.', '')}"
    if not os.path.isdir(state):
        _make_state(version, state, log_path, user)
    ours, theirs = (confine.raised(end.detach()) for end in socket.socketpair())
    argv = [
        program("swtpm", "swtpm"),
        "socket",
        "--ctrl",
        f"type=unixio,clientfd={theirs}",
        "--tpmstate",
        f"dir={state},mode=0600",
        "--terminate",
    ]
    if version == "2.0":
        argv.append("--tpm2")
    return Helper(argv, [theirs], user, bound=False), ours


def remove_state(directory: str) -> None:
    """Forget a TPM's state, if there is any."""
    shutil.rmtree(directory, ignore_errors=True)


def _make_state(version: str, state: str, log_path: str, user: confine.User | None) -> None:
    """Manufacture a TPM. The directory appears under its name when it is whole."""
    parent, name = os.path.split(state)
    files.make_directory(parent)
    made = f"{parent}/.new-{name}"
    shutil.rmtree(made, ignore_errors=True)  # of a start that was killed; the guest's lock is held
    try:
        os.mkdir(made, 0o700)
        if user is not None:
            os.chown(made, user.uid, user.gid)
        argv = [
            program("swtpm_setup", "swtpm-tools"),
            "--tpmstate",
            made,
            "--lock-nvram",
            "--createek",
            "--not-overwrite",
        ]
        if version == "2.0":
            argv.append("--tpm2")
        _run(argv, log_path, user, made)
        os.rename(made, state)
    except OSError as error:
        raise files.os_error(error, f"cannot make the TPM's state in '{parent}'") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _run(argv: list[str], log_path: str, user: confine.User | None, home: str) -> None:
    output = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        environment = {"PATH": confine.PATH, "LC_ALL": "C", "HOME": home, "TMPDIR": home, "XDG_CONFIG_HOME": home}
        pid = confine.spawn(argv, environment=environment, output=output, user=user)
    finally:
        os.close(output)
    descriptor = os.pidfd_open(pid)
    try:
        if not deadlines.readable(descriptor, SETUP_SECONDS):
            os.kill(pid, 9)
    finally:
        os.close(descriptor)
    if os.waitpid(pid, 0)[1]:
        text = f"Could not run '{argv[0]}': see {log_path} for what it says"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_QEMU)
