"""The command ``run``, and the group ``runs``."""
