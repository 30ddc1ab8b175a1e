"""Virtual networks: bridges, addresses, DHCP and DNS by dnsmasq, NAT and filtering by nftables, and guests' ports."""
