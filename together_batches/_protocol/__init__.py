"""Bytes to values and back: JSON, the requests of each endpoint and its responses. No I/O."""
