"""On the device: telemetry out over MQTT, signed releases in over HTTP. Touches no tensor."""

__version__ = "0.1.0.dev0"
