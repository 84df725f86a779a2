"""What a launch asks of plug-ins: what they are, and whether they may be certified, and trained to the bit."""
