"""The operations on jobs: one file for each verb, over functions that are passed in."""
