"""Benchmarks: each compares with what a user would pick instead, answers checked first."""
