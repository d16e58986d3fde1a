"""What the keys of an MFTCoder config become, one part of the configuration at a time."""
