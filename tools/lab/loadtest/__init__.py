"""Verified load: sessions that each speak a text of their own, and a check of every word."""
