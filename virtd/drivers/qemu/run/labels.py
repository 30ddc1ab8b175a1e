"""Who a guest's QEMU runs as, and whose its files become: <seclabel> for the security driver 'dac'.

There is no other security driver here. A label is a user and a group, as 'name:name' or '+uid:+gid'.
"""

from collections.abc import Callable, Iterator

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.base import DeviceSeclabel
from virtd.conf.domain.disk import BackingStore, SourceBase
from virtd.conf.domain.os import Seclabel
from virtd.drivers.qemu.command.storage import local_path
from virtd.drivers.qemu.run import access, confine
from virtd.errors import VirtError

MODEL = "dac"
_NO_DRIVER = ("none", MODEL)


def check(config: Config, user: confine.User | None) -> None:
    """Refuse labels for security drivers that there are not.

    Args:
        config: the guest's configuration.
        user: who QEMU runs as by itself; None where nobody is chosen, and there is no 'dac' either.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED.
    """
    known = _NO_DRIVER if user is not None else ("none",)
    models = [label.model for label in config.seclabels]
    models += [label.model for _, labels in _sources(config) for label in labels]
    for model in models:
        if model is not None and model not in known:
            text = f"Security driver model '{model}' is not available"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_SECURITY)


def user_of(config: Config, user: confine.User | None) -> confine.User | None:
    """Who a guest's QEMU runs as.

    Args:
        config: the guest's configuration.
        user: who it runs as if that says nothing.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, there is no such user or group.
    """
    label = _own(config)
    if user is None or label is None or label.type != "static" or label.label is None:
        return user
    return _user(label.label)


def whose(config: Config, user: confine.User) -> Callable[[str], access.Owner]:
    """Tells who each of a guest's files is to belong to: its QEMU's user, if the configuration says nothing else.

    Args:
        config: the guest's configuration.
        user: who QEMU runs as.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, a label names nobody.
    """
    label = _own(config)
    relabel = label is None or label.type == "dynamic" or label.relabel is True
    special: dict[str, access.Owner] = {}
    for path, labels in _sources(config):
        for one in labels:
            if one.label is not None:
                special[path] = access.Owner(_user(one.label), always=True)
            elif one.relabel is False:
                special[path] = access.Owner(None)
    usual = access.Owner(user if relabel else None)
    return lambda path: special.get(path, usual)


def describe(config: Config, user: confine.User | None) -> None:
    """Write into the live configuration who QEMU runs as.

    Args:
        config: the guest's live configuration.
        user: who that is; None if nobody was chosen.
    """
    label = _own(config)
    if user is None:
        return
    if label is None:
        config.seclabels.append(Seclabel(type="dynamic", model=MODEL, relabel=True))
        label = config.seclabels[-1]
    if label.type == "dynamic":
        label.label = label.imagelabel = user.label
    elif label.type == "static" and label.relabel:
        label.imagelabel = label.label


def _own(config: Config) -> Seclabel | None:
    return next((label for label in config.seclabels if label.model == MODEL), None)


def _user(label: str) -> confine.User:
    name, _, group = label.partition(":")
    found = confine.find_user(privileged=True, user=name, group=group or None)
    assert found is not None, "a user that is named is found, or refused"
    return found


def _sources(config: Config) -> Iterator[tuple[str, list[DeviceSeclabel]]]:
    """What devices' sources are, and the labels they have of their own."""
    for disk in config.disks:
        yield from _labels(disk.source)
        below: BackingStore | None = disk.backing
        while below is not None:
            yield from _labels(below.source)
            below = below.backing
    ports = (*config.serials, *config.parallels, *config.consoles, *config.channels)
    for source in (getattr(port, "source", None) for port in ports):
        labels = getattr(source, "seclabels", None)
        if labels:
            yield getattr(source, "path", None) or "", labels


def _labels(source: SourceBase | None) -> Iterator[tuple[str, list[DeviceSeclabel]]]:
    if source is not None and source.seclabels:
        yield local_path(source) or "", source.seclabels
