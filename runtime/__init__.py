"""Shared by all processes: settings, logging, metrics, traces, signals and supervision."""
