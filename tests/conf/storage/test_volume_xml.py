"""Volumes' XML: what is read, what is filled in, what is refused and how."""

import pytest

from virtd import constants as c
from virtd.conf.storage import POOL_TYPES, format_volume, parse_volume
from virtd.conf.storage.volume import read_volume
from virtd.errors import VirtError

DIR = POOL_TYPES["dir"]

WHOLE = """\
<volume type='file'>
  <name>a&lt;b</name>
  <capacity unit='bytes'>1099511627776</capacity>
  <allocation unit='bytes'>0</allocation>
  <target>
    <format type='qcow2'/>
    <permissions>
      <mode>0644</mode>
      <owner>5</owner>
      <group>4294967294</group>
      <label>l</label>
    </permissions>
    <encryption format='luks'>
      <secret type='passphrase' uuid='f52a81b2-424e-490c-823d-6bd4235bc572'/>
      <cipher name='aes' size='256' mode='cbc' hash='sha256'/>
      <ivgen name='plain64' hash='sha256'/>
    </encryption>
    <compat>1.1</compat>
    <clusterSize unit='B'>131072</clusterSize>
    <features>
      <lazy_refcounts/>
      <extended_l2/>
    </features>
  </target>
  <backingStore>
    <path>/base</path>
    <format type='raw'/>
    <permissions>
      <mode>0600</mode>
      <owner>0</owner>
      <group>0</group>
    </permissions>
  </backingStore>
</volume>
"""


def test_all_of_it() -> None:
    volume = parse_volume(WHOLE, DIR)
    assert format_volume(volume) == WHOLE
    assert format_volume(read_volume(WHOLE)) == WHOLE


def test_units_and_what_does_not_count() -> None:
    volume = parse_volume(
        "<volume><key>k</key><name>a</name><capacity unit='TiB'>1</capacity><allocation unit='KB'>1</allocation>"
        "<physical unit='G'>3</physical><source><device path='/x'><extent start='x'/></device></source>"
        "<target><path>/elsewhere</path><timestamps><atime>x</atime></timestamps></target></volume>",
        DIR,
    )
    assert (volume.capacity, volume.allocation, volume.physical) == (1 << 40, 1000, None)
    assert (volume.key, volume.target.path, volume.target.format) == (None, None, "raw")
    assert volume.target.timestamps is None


@pytest.mark.parametrize(
    ("xml", "code", "message"),
    [
        ("<volume/>", c.VIR_ERR_XML_ERROR, "XML error: missing volume name element"),
        ("<vol/>", c.VIR_ERR_XML_ERROR, "XML error: expecting root element of 'volume', not 'vol'"),
        ("<volume><name>a</name></volume>", c.VIR_ERR_XML_ERROR, "XML error: missing capacity element"),
        (
            "<volume><name>a</name><capacity>x</capacity></volume>",
            c.VIR_ERR_XML_ERROR,
            "XML error: malformed capacity element",
        ),
        (
            "<volume><name>a</name><capacity unit='foo'>1</capacity></volume>",
            c.VIR_ERR_INVALID_ARG,
            "invalid argument: unknown suffix 'foo'",
        ),
        (
            "<volume><name>a</name><capacity unit='E'>100</capacity></volume>",
            c.VIR_ERR_OVERFLOW,
            "numerical overflow: value too large: 100E",
        ),
        (
            "<volume type='bogus'><name>a</name><capacity>1</capacity></volume>",
            c.VIR_ERR_CONFIG_UNSUPPORTED,
            "unsupported configuration: unknown volume type 'bogus'",
        ),
    ],
)
def test_refused(xml: str, code: int, message: str) -> None:
    with pytest.raises(VirtError) as failure:
        parse_volume(xml, DIR)
    assert (failure.value.code, failure.value.message) == (code, message)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("<format type='bogus'/>", "unsupported configuration: unknown volume format type bogus"),
        ("<format type='none'/>", "unsupported configuration: unknown volume format type none"),
        ("<format type='auto'/>", "unsupported configuration: unknown volume format type auto"),
        ("<compat>11</compat>", "XML error: forbidden characters in 'compat' attribute"),
        ("<compat>a.b</compat>", "XML error: forbidden characters in 'compat' attribute"),
        ("<features><bogus/></features>", "unsupported configuration: unsupported feature bogus"),
        ("<encryption/>", "XML error: unknown volume encryption format"),
        (
            "<encryption format='bogus'/>",
            "unsupported configuration: unknown volume encryption format type bogus",
        ),
        (
            "<encryption format='luks'><secret type='x' usage='y'/></encryption>",
            "unsupported configuration: unknown volume encryption secret type x",
        ),
        (
            "<encryption format='luks'><secret type='passphrase'/></encryption>",
            "XML error: missing secret uuid or usage attribute",
        ),
        ("<permissions><mode>888</mode></permissions>", "XML error: malformed octal mode"),
        ("<permissions><owner>x</owner></permissions>", "XML error: malformed owner element"),
    ],
)
def test_refused_targets(target: str, message: str) -> None:
    with pytest.raises(VirtError) as failure:
        parse_volume(f"<volume><name>a</name><capacity>1</capacity><target>{target}</target></volume>", DIR)
    assert failure.value.message == message


def test_features_imply_a_version() -> None:
    xml = "<volume><name>a</name><capacity>1</capacity><target><format type='qcow2'/><features/></target></volume>"
    assert parse_volume(xml, DIR).target.compat == "1.1"
