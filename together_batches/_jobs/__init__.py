"""What a client does with jobs: one file for each verb, over functions that are passed in."""
