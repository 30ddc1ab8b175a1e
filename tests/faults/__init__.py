"""What virtd survives: processes that die at each step of each operation, disks that fill up, guests that hang.

`python3 -m tests.faults` (contrib/faults) runs all of it and prints a table; the tests run a seeded part.
"""
