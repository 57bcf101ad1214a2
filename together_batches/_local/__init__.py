"""Files of this machine: written beside their place, and put there when they are complete."""
