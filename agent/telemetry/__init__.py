"""What the device tells about itself."""
