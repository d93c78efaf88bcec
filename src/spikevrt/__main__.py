"""`python -m spikevrt`: the same command line as `spikevrt`."""

from __future__ import annotations

from spikevrt.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
