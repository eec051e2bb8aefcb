"""What travels between processes: messages, their encoding, and the sockets that carry them.

Imports none of the other packages, so that every process may depend on it.
"""
