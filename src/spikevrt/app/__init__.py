"""The web page over `restore`."""
