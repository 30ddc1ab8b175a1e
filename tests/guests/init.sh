#!/bin/busybox sh
# The first process of the test guest (tests/guests/linux.py). Kernel command line:
#   virtd.net=dhcp     bring up the first network interface by DHCP and print "virtd: address ADDRESS"
#   virtd.name=NAME    the guest's host name, which the DHCP server is told, too
#   virtd.mount=DISK   make a file system on a disk and mount it on /mnt
#   virtd.quiet        no shell: print READY and wait
#   virtd.run=COMMAND  run this after READY ("_" stands for a space), before the shell
#   virtd.host=SCRIPT  instead of all that: the host's files, shared as "host", are the root (what is written there goes
#                      to memory), and this file of them is run

/bin/busybox --install -s /bin
export PATH=/sbin:/bin HOME=/ TERM=linux PS1='guest# '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
for module in /lib/*.ko; do
    insmod "$module" 2>/dev/null
done

option() {
    sed -n "s/.*\<virtd\.$1=\([^ ]*\).*/\1/p" /proc/cmdline
}

script=$(option host)
if [ -n "$script" ]; then
    mkdir -p /host /written /root
    mount -t virtiofs -o ro host /host
    mount -t tmpfs -o mode=755 written /written
    mkdir /written/upper /written/work
    mount -t overlay -o lowerdir=/host,upperdir=/written/upper,workdir=/written/work overlay /root
    for directory in proc sys dev; do
        mount --move /$directory /root/$directory
    done
    mount -t tmpfs -o mode=755 run /root/run
    exec switch_root /root /bin/sh "$script"
fi

acpid -f -c /etc/acpi -l /dev/null -p /run/acpid.pid </dev/null >/dev/null 2>&1 &

if [ "$(option net)" = dhcp ]; then
    cat >/run/dhcp <<'SCRIPT'
#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip address flush dev "$interface"
ip address add "$ip/${mask:-24}" dev "$interface"
[ -z "$router" ] || ip route add default via "${router%% *}"
[ -z "$dns" ] || echo "search $domain
nameserver ${dns%% *}" >/etc/resolv.conf
echo "virtd: address $ip"
SCRIPT
    chmod 755 /run/dhcp
    ip link set lo up
    interface=$(ls /sys/class/net | grep -v '^lo$' | head -n 1)
    ip link set "$interface" up
    host=$(option name)
    udhcpc -i "$interface" -s /run/dhcp -t 10 -T 1 -n -q ${host:+-x "hostname:$host"} >/run/udhcpc.log 2>&1
    grep '^virtd: address' /run/udhcpc.log || echo "virtd: no address"
fi

disk=$(option mount)
if [ -n "$disk" ]; then
    mke2fs -q "/dev/$disk" >/dev/null 2>&1 || mke2fs "/dev/$disk" >/dev/null
    mount -t ext4 "/dev/$disk" /mnt
fi

hostname "$(option name)"
# Where the agent looks for it.
ln -s /bin/busybox /sbin/hwclock

# The guest agent, if there is one and a channel for it.
for port in /sys/class/virtio-ports/*; do
    if [ -x /sbin/qemu-ga ] && [ "$(cat "$port/name" 2>/dev/null)" = org.qemu.guest_agent.0 ]; then
        qemu-ga -m virtio-serial -p "/dev/${port##*/}" -t /run -f /run/qemu-ga.pid -l /run/qemu-ga.log &
    fi
done

echo "@READY@"
eval "$(option run | tr _ ' ')"
while grep -q 'virtd\.quiet' /proc/cmdline; do
    sleep 3600
done
while true; do
    setsid cttyhack sh
done
