"""Verified load: each session speaks a text of its own, and every word is checked."""
