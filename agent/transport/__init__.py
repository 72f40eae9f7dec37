"""MQTT: the only import of paho."""
