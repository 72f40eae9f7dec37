"""One release on its way to this device, persisted at every step."""
