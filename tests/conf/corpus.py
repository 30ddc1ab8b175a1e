#!/usr/bin/env python3
"""corpus.py CORPUS_DIR [--host FILE.py] [--show GLOB] [--tsv FILE]: parse and format a corpus of domain XML in process.

Each DIR/domains/NAME has in.xml and either out.xml (what libvirt made of it) or error.json (why it refused it).
Prints how many are identical, differ only in order, differ, are wrongly refused or accepted, or have another code.
MAC addresses and UUIDs that are made up are not compared.
"""

import argparse
import collections
import copy
import difflib
import fnmatch
import json
import re
import sys
import traceback
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from virtd.conf.domain import format_domain, parse_domain  # noqa: E402
from virtd.conf.host import GOLDEN_HOST  # noqa: E402
from virtd.errors import VirtError  # noqa: E402

MAC = re.compile(r"(?i)\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b")
UUID = re.compile(r"(?i)\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b")
MADE_UP = "GENERATED"


def normalised(xml: str, source: str) -> ET.Element:
    """The document as a tree, with what was made up replaced."""
    root = ET.fromstring(xml)
    known = ET.fromstring(source)
    macs = {m.lower() for m in MAC.findall(source)}
    uuids = {u.lower() for u in UUID.findall(source)}
    for name in ("uuid", "genid"):
        element = root.find(name)
        if element is not None and not (known.findtext(name) or "").strip():
            element.text = MADE_UP
    for element in root.iter("mac"):
        address = element.get("address", "")
        if MAC.fullmatch(address) and address.lower() not in macs:
            element.set("address", MADE_UP)
    for element in root.iter("parameters"):
        for key, value in list(element.attrib.items()):
            if UUID.fullmatch(value) and value.lower() not in uuids:
                element.set(key, MADE_UP)
    for element in root.iter():
        element.text = element.text if element.text and element.text.strip() else None
        element.tail = element.tail if element.tail and element.tail.strip() else None
    return root


def canonical(root: ET.Element) -> str:
    """A text that is the same for trees that are the same."""
    return ET.canonicalize(ET.tostring(root, encoding="unicode"), strip_text=True)


def in_order(root: ET.Element) -> ET.Element:
    """The tree with all children sorted."""
    root = copy.deepcopy(root)
    for element in reversed(list(root.iter())):
        element[:] = sorted(element, key=ET.tostring)
    return root


def lines(root: ET.Element) -> list[str]:
    """The tree as lines, for a diff."""
    root = copy.deepcopy(root)
    ET.indent(root)
    return ET.canonicalize(ET.tostring(root, encoding="unicode")).split("\n")


def judge(case: Path) -> tuple[str, str]:
    """What becomes of one case: the result's name, and what there is to say of it."""
    source = (case / "in.xml").read_text(encoding="utf-8", errors="surrogateescape")
    golden = case / "out.xml"
    expected = None if golden.exists() else json.loads((case / "error.json").read_text())
    try:
        ours = format_domain(parse_domain(source, GOLDEN_HOST))
    except VirtError as error:
        if expected is None:
            return "wrongly refused", error.message
        if expected["code"] == error.code:
            same = expected["message"] == error.message and expected["domain"] == error.domain
            return (
                "same error" if same else "same code",
                f"{error.domain} {error.message}   | {expected['domain']} {expected['message']}",
            )
        return "other code", f"{error.code} {error.message}   | {expected['code']} {expected['message']}"
    except Exception:
        return "crash", traceback.format_exc()
    if expected is not None:
        return "wrongly accepted", f"{expected['code']} {expected['message']}"
    theirs = golden.read_text(encoding="utf-8", errors="surrogateescape")
    a, b = normalised(theirs, source), normalised(ours, source)
    if canonical(a) == canonical(b):
        return "identical", ""
    result = "order" if canonical(in_order(a)) == canonical(in_order(b)) else "differs"
    return result, "\n".join(list(difflib.unified_diff(lines(a), lines(b), "libvirt", "virtd", lineterm="", n=1))[2:])


def main() -> int:
    """Run the corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--name", default="*", help="only cases whose name matches")
    parser.add_argument("--show", action="append", default=[], help="show the cases with this result")
    parser.add_argument("--tsv", type=Path, help="write name and result of each case there")
    args = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    rows = []
    for case in sorted((args.corpus / "domains").iterdir()):
        if not fnmatch.fnmatchcase(case.name, args.name):
            continue
        result, what = judge(case)
        counts[result] += 1
        rows.append(f"{case.name}\t{result}\t{what.splitlines()[0] if what else ''}")
        if result in args.show or "all" in args.show:
            print(f"### {case.name}: {result}\n{what}")
    if args.tsv:
        args.tsv.write_text("\n".join(rows) + "\n")
    for result, count in counts.most_common():
        print(f"{count:5}  {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
