"""What was captured: frames, videos, packed spike streams, and the folder that keeps them together."""
