"""The command ``cancel``."""
