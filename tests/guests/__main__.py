"""Print domain XML with the Linux guest, ready for `virsh define`: python3 -m tests.guests NAME [OPTION...].

The same name gives the same UUID, so that it can be defined again.
"""

import sys
import uuid

from tests.guests import linux
from tests.guests.xml import linux_domain

name, *options = sys.argv[1:]
print(linux_domain(name, linux.build(), *options, uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, name))))
