"""Tests of virtd.protocol."""
