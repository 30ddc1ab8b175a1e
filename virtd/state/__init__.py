"""State on disk: directories, whole files, locks, the generation, the journal.

Nothing in here knows what a guest is. Whatever several processes share is a file below one of the
directories of `Paths`; nothing is shared through memory but one mapped counter (`commit`).
"""
