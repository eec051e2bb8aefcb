"""Faults on real processes under verified load, and the check that nothing was lost."""
