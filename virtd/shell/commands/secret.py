"""Secrets: what volumes are encrypted with, and what servers ask for."""

import base64
import binascii
import sys

from virtd import constants as c
from virtd import uuids
from virtd.shell import states
from virtd.shell.acts import act, dump_xml, find
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Cell, Output, Plain, Table
from virtd.shell.session import Session, read_text

_FILTERS = {
    "ephemeral": c.VIR_CONNECT_LIST_SECRETS_EPHEMERAL,
    "no-ephemeral": c.VIR_CONNECT_LIST_SECRETS_NO_EPHEMERAL,
    "private": c.VIR_CONNECT_LIST_SECRETS_PRIVATE,
    "no-private": c.VIR_CONNECT_LIST_SECRETS_NO_PRIVATE,
}


def secret_list(session: Session, args: Args) -> Output:
    """virConnectListAllSecrets."""
    with failing("Failed to list secrets"):
        secrets = session.call("connect_list_all_secrets", 1, args.flags(_FILTERS))[0]
    table = Table((("uuid", "UUID"), ("usage", "Usage")))
    for one in sorted(secrets, key=lambda secret: uuids.to_text(secret.uuid)):
        kind = states.of(states.SECRET_USAGE, one.usageType)
        usage = (
            Cell(f"{kind} {one.usageID}", {"type": kind, "id": one.usageID}) if one.usageType else Cell("Unused", None)
        )
        table.add(uuids.to_text(one.uuid), usage)
    return table


def secret_define(session: Session, args: Args) -> None:
    """virSecretDefineXML."""
    path = args.required("file")
    text = read_text(path)
    flags = args.flags({"validate": c.VIR_SECRET_DEFINE_VALIDATE})
    with failing(f"Failed to set attributes from {path}"):
        secret = session.call("secret_define_xml", text, flags)
    session.say(f"Secret {uuids.to_text(secret.uuid)} created\n")


def get_value(session: Session, args: Args) -> Output:
    """virSecretGetValue."""
    value: bytes = session.call("secret_get_value", find(session, args, "secret"), 0)
    if args.flag("plain"):
        text = value.decode("utf-8", "surrogateescape")
        return Plain("value", text, text)
    text = base64.b64encode(value).decode()
    return Plain("value", text, text)


def set_value(session: Session, args: Args) -> None:
    """virSecretSetValue."""
    for one, other in (("file", "base64"), ("plain", "base64"), ("plain", "interactive"), ("file", "interactive")):
        args.exclusive(one, other)
    args.exclusive("base64", "interactive")
    secret = find(session, args, "secret")
    path, encoded = args.text("file"), args.text("base64")
    if encoded is not None:
        # Everybody on the machine can read the command lines of others.
        session.complain("Passing secret value as command-line argument is insecure!")
        value = _decode(encoded.encode())
    elif path is not None:
        value = _read(path)
        if not args.flag("plain"):
            value = _decode(value)
    elif args.flag("interactive"):
        value = _ask()
    else:
        raise Failure("Input secret value is missing")
    with failing("Failed to set secret value"):
        session.call("secret_set_value", secret, value, 0)
    session.say("Secret value set\n")


def _decode(encoded: bytes) -> bytes:
    """Base64, read as leniently as virsh does: other characters do not count."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    digits = bytes(one for one in encoded if one in alphabet)
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]
    try:
        value = binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))
    except binascii.Error as error:
        raise Failure(f"Invalid base64 data: {error}") from None
    if not value:
        raise Failure("Failed to set secret value", "value in virSecretSetValue must not be NULL")
    return value


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Failure(f"Failed to open file '{path}': {error.strerror}") from None


def _ask() -> bytes:
    """A value that the user types, unseen."""
    if not sys.stdin.isatty():
        raise Failure("Failed to read secret")
    import getpass

    return getpass.getpass("Enter new value for secret:").encode("utf-8", "surrogateescape")


COMMANDS = (
    Command(
        "secret-define",
        "<file> [--validate]",
        "define a secret, or change its attributes, from an XML file",
        secret_define,
        kinds={"file": "path"},
    ),
    Command(
        "secret-dumpxml",
        "<secret> [--xpath =<string>] [--wrap]",
        "show a secret's XML",
        dump_xml("secret", "secret_get_xml_desc"),
    ),
    Command("secret-get-value", "<secret> [--plain]", "show a secret's value", get_value),
    Command(
        "secret-list",
        "[--ephemeral] [--no-ephemeral] [--private] [--no-private]",
        "show which secrets there are",
        secret_list,
    ),
    Command(
        "secret-set-value",
        "<secret> [--file =<string>] [--plain] [--interactive] [--base64 <string>]",
        "set a secret's value",
        set_value,
        kinds={"file": "path"},
    ),
    Command(
        "secret-undefine",
        "<secret>",
        "remove a secret",
        act("secret", "secret_undefine", "Secret {name} deleted", "Failed to delete secret {name}"),
    ),
)
