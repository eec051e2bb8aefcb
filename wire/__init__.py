"""The bus between processes: messages, their encoding, and the sockets that carry them.

This package imports none of the others, so every process can depend on it.
"""
