"""Durable runs, room by room."""
