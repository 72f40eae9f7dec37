"""The daemon of this device, as the agent asks it: over its Unix sockets."""
