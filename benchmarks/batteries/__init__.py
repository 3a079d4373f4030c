"""Tests of randomness on every kind of stream, with controls that must fail: ``python -m benchmarks.batteries``."""
