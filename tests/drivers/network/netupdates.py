"""What is asked of net-update: every section and command, in this order, each with one element.

netupdates.json has libvirtd 9.0.0's answers, by flags: what it said to each (nothing: it was done), and what the
network was at the end, live and in its definition.
"""

COMMANDS = ("modify", "add-last", "add-first", "modify", "delete", "delete", "add-first")
FLAGS = ("--current", "--live", "--config", "--live --config")
ELEMENTS = {
    "bridge": "<bridge name='x'/>",
    "domain": "<domain name='x'/>",
    "ip": "<ip address='1.2.3.4' prefix='24'/>",
    "ip-dhcp-host": "<host mac='52:54:00:00:00:07' name='seven' ip='10.9.8.7'/>",
    "ip-dhcp-range": "<range start='10.9.8.100' end='10.9.8.110'/>",
    "forward": "<forward mode='route'/>",
    "forward-interface": "<interface dev='up0'/>",
    "forward-pf": "<pf dev='up0'/>",
    "portgroup": "<portgroup name='fast' default='yes'/>",
    "dns-host": "<host ip='10.9.8.50'><hostname>box</hostname></host>",
    "dns-txt": "<txt name='note' value='x'/>",
    "dns-srv": "<srv service='ldap' protocol='tcp' domain='d.test' target='a' port='1'/>",
}
