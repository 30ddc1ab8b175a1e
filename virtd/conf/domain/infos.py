"""Every device of a definition, whatever it is: for what concerns all of them alike."""

from collections.abc import Iterator

from virtd.conf.domain.base import Device, Info
from virtd.conf.domain.domain import Domain


def all_infos(domain: Domain) -> Iterator[Info]:
    """The Info of every device; the first console shares that of the first serial port."""
    for name in domain.fields:
        value = getattr(domain, name)
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, Device):
                if name == "consoles" and item is domain.consoles[0] and getattr(item, "target_type", "") == "serial":
                    continue
                yield item.info
