#!/usr/bin/env python3
"""corpus.py DIR [--show]: parse and format a corpus of network XML in process.

Each DIR/NAME has in.xml and either out.xml (what libvirt made of it) or error.json (the code it refused it with).
A MAC address that libvirt made up, and the name of a bridge that it chose, are not compared.
"""

import argparse
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from virtd.conf.network import format_network, parse_network
from virtd.errors import VirtError

_MAC = re.compile(r"  <mac address='[^']*'/>\n")


def verdict(case: Path) -> str:
    """Empty if a case is as libvirt has it, else what is different."""
    error, out = case / "error.json", case / "out.xml"
    try:
        network = parse_network((case / "in.xml").read_text())
    except VirtError as failure:
        if not error.exists():
            return f"refused: {failure}"
        wanted = json.loads(error.read_text())
        same = (failure.code, failure.message) == (wanted["code"], wanted["message"])
        return "" if same else f"{failure.code} {failure} instead of {wanted['code']} {wanted['message']}"
    if error.exists():
        return f"accepted instead of {json.loads(error.read_text())['message']}"
    wanted_text, text = out.read_text().strip(), format_network(network).strip()
    if network.mac is None:
        wanted_text = _MAC.sub("", wanted_text, count=1)
    if network.bridge is None and network.own_bridge:
        wanted_text = re.sub(r"<bridge name='[^']*'", "<bridge", wanted_text)
    return "" if text == wanted_text else f"{text}\n--- instead of\n{wanted_text}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--show", action="store_true", help="show what is different")
    options = parser.parse_args()
    cases = sorted(path.parent for path in options.directory.glob("*/in.xml"))
    wrong = {case.name: found for case in cases if (found := verdict(case))}
    for name, found in wrong.items():
        print(name, found if options.show else "")
    print(f"{len(cases) - len(wrong)} of {len(cases)} as libvirt")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
