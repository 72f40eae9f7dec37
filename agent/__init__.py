"""On the device: telemetry out over MQTT, signed releases in. Not built yet."""
