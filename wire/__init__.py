"""The bus between processes: messages, their encoding, and the sockets that carry them."""
