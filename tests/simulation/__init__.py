"""A seeded simulator of the routing core: faults first, then heal, invariants after every event.

``python -m tests.simulation --seed N --trace`` replays one schedule.
"""
