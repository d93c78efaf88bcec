"""How good a restoration is: named metrics, the runner that times and scores, the report."""
