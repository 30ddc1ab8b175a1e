"""CPU models: the map of those of x86, and what is computed with them. Knows neither host nor emulator."""
