"""The secret driver: what passphrases there are and what for, and the passphrases, which lie encrypted on disk."""
