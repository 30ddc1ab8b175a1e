"""Tests of virtd.drivers.remote."""
