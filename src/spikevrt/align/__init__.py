"""The two cameras side by side: is the footage healthy, upright and of the gain one thinks."""
