"""Starts a whole system as processes of its own, and observes it from outside.

The benchmarks, the load test, the chaos tests, the fuzzer and the integration tests share it.
"""
