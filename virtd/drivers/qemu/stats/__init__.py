"""What guests use: counters read from QEMU, the kernel and the files, and the bulk statistics made of them."""
