"""What an older VRT+Spike had, into ours."""
