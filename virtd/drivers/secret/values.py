"""The values of secrets: files that are of use only together with the instance's key.

A value is encrypted with AES-256-GCM. The key lies in the state directory, away from the configuration: who copies
or backs up the configuration gets no passphrases with it. It does not protect from whoever may read both, as root
and the user of a session may. A value belongs to one secret: its file is no value of another one.

The cryptography package is imported when the first value is read or written.
"""

import os
from typing import TYPE_CHECKING

from virtd import constants as c
from virtd import uuids
from virtd.errors import VirtError
from virtd.state import files, locks
from virtd.state.paths import Paths

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_MAGIC = b"virtd-secret-1\n"
_KEY_SIZE = 32  # bytes: AES-256
_NONCE_SIZE = 12  # bytes: what GCM is made for (NIST SP 800-38D)


def encrypt(paths: Paths, uuid: str, value: bytes) -> bytes:
    """The content of the file of a secret's value.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR; VIR_ERR_CONFIG_UNSUPPORTED, the cryptography package is missing.
    """
    nonce = os.urandom(_NONCE_SIZE)
    return _MAGIC + nonce + _cipher(_key(paths)).encrypt(nonce, value, uuids.to_bytes(uuid))


def decrypt(paths: Paths, uuid: str, content: bytes) -> bytes:
    """The value that a file holds.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, the file is damaged, or not of this secret or this instance.
    """
    start = len(_MAGIC)
    if content.startswith(_MAGIC):
        cipher = _cipher(_key(paths))
        from cryptography.exceptions import InvalidTag

        try:
            nonce, sealed = content[start : start + _NONCE_SIZE], content[start + _NONCE_SIZE :]
            return cipher.decrypt(nonce, sealed, uuids.to_bytes(uuid))
        except (InvalidTag, ValueError):
            pass
    text = f"the value of secret '{uuid}' is damaged, or was not encrypted with the key '{_key_path(paths)}'"
    raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_SECRET)


def _cipher(key: bytes) -> "AESGCM":
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        text = "values of secrets need the Python package 'cryptography', which is not installed"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_SECRET) from None
    return AESGCM(key)


def _key_path(paths: Paths) -> str:
    return f"{paths.state}/secrets.key"


def _key(paths: Paths) -> bytes:
    """The instance's key, made when it is first needed."""
    path = _key_path(paths)
    key = files.read(path)
    if key is None:
        with locks.held(
            f"{paths.runtime}/secret-key.lock", "the making of the key for secrets", what="lock of the key"
        ):
            key = files.read(path)
            if key is None:
                files.make_directory(paths.state)
                key = os.urandom(_KEY_SIZE)
                files.replace(path, key, durable=True)
    if len(key) != _KEY_SIZE:
        text = f"the key for secrets, '{path}', is damaged"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_SECRET)
    return key
