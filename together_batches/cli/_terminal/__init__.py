"""The terminal and the process: what any command line has, and nothing of batches."""
