"""Which account a command uses: its key, its profile, its client."""
