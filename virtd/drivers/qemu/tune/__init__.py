"""What is set while a guest is there: memory, virtual CPUs, and the shares and limits of what it uses."""
