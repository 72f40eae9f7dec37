"""Decides what this device does about the fleet's plan; pure."""
