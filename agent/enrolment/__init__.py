"""How a device joins its fleet, and stays in it: nothing is trusted on first use."""
