"""How good a restoration is: named metrics, and the runner that times and scores."""
