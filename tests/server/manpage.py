"""The list of settings in virtd.conf(5), made from the table; run it to put the list into the page."""

from tests.server.harness import TOP
from virtd.server.options import OPTIONS, UNUSED

TYPES = {
    "string": '"TEXT"',
    "number": "NUMBER",
    "signed": "NUMBER",
    "flag": "0 or 1",
    "notyet": "0",
    "port": '"PORT"',
    "mode": '"OCTAL"',
    "auth": '"none"',
    "access": '[ "nop" ]',
    "level": "1 to 4",
    "outputs": '"OUTPUTS"',
}

BEGIN = '.\\" The settings, from the table in virtd/server/options.py; a test compares them.\n'
END = '.\\" The end of the settings.\n'


def quote(text):
    """Text as roff takes it."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in ".'" else text


def settings_section():
    """All settings, in roff."""
    lines = [BEGIN]
    for group, options in OPTIONS.items():
        lines.append(f".SS {group}\n")
        for option in options:
            lines.append(f".TP\n.B {quote(option.name)} = {quote(TYPES[option.type])}\n")
            lines.append(quote(option.meaning) + "\n")
            if option.default is not None and option.default != ():
                default = f'"{option.default}"' if isinstance(option.default, str) else str(option.default)
                lines.append(f"Default: {quote(default)}.\n")
    lines.append(".SS Without effect\n")
    lines.append("These settings of libvirtd are read, and the log says that they have no effect.\n")
    for name, why in UNUSED.items():
        lines.append(f".TP\n.B {quote(name)}\n{quote(why[0].upper() + why[1:])}.\n")
    lines.append(END)
    return "".join(lines)


if __name__ == "__main__":
    path = TOP / "man/virtd.conf.5"
    page = path.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(before + settings_section() + after)
