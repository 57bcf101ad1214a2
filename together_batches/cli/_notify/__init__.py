"""Notifications of what happens to jobs and runs."""
