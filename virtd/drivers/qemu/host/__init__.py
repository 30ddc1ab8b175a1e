"""What the host and its emulators can do: probing, capabilities, CPU models, and the host's own figures."""
