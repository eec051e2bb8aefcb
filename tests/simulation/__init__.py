"""Seeded simulators: faults first, then heal, invariants after every event.

``sessions`` runs the real cores of clients, gateways, broker, workers and persistence together,
``schedule`` the broker's routing core alone under more events, ``crowd`` admission under crowds.
``python -m tests.simulation --seed N --trace`` replays one schedule.
"""
