"""The commands: a file for each, or a package with what it alone needs."""
