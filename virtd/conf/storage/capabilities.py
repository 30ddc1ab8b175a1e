"""<storagepoolCapabilities>: which types of pools and which formats there are."""

from collections.abc import Container

from virtd.conf.storage.types import POOL_TYPES


def format_capabilities(supported: Container[str]) -> str:
    """The document.

    Args:
        supported: the types of pools that can be used here.
    """
    lines = ["<storagepoolCapabilities>"]
    for kind in POOL_TYPES.values():
        lines.append(f"  <pool type='{kind.name}' supported='{'yes' if kind.name in supported else 'no'}'>")
        for tag, default, values, enum in (
            ("poolOptions", kind.default_format, kind.formats, "sourceFormatType"),
            ("volOptions", kind.default_volume, kind.volumes, "targetFormatType"),
        ):
            if default is not None:
                lines += [f"    <{tag}>", f"      <defaultFormat type='{default}'/>", f"      <enum name='{enum}'>"]
                lines += [f"        <value>{value}</value>" for value in values]
                lines += ["      </enum>", f"    </{tag}>"]
        lines.append("  </pool>")
    return "\n".join([*lines, "</storagepoolCapabilities>", ""])
