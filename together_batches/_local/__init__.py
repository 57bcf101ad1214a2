"""Local files that appear under their names only when they are complete."""
