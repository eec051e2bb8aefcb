"""Seeded simulation of the whole system: faults first, then heal; invariants after each event.

``schedule`` runs the real code of clients, gateways, broker, workers and persistence together, or
the broker without real gateways under more jobs. ``crowd`` simulates admission of many clients.
``python -m tests.simulation --seed N --trace`` replays one schedule.
"""
