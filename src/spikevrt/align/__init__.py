"""The two cameras: is a recording sound (the health gate), and its time offset and registration."""
