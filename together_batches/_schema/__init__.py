"""Schemas of answers: what a user passes as ``schema``, how it is sent, and answers read by it."""
