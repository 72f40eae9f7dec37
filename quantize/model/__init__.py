"""Model files as they come in: what they are, whether they can be used, and in which form."""
