"""On the device: telemetry out over MQTT, signed releases in over HTTP. Not built yet: docs/architecture.md."""
