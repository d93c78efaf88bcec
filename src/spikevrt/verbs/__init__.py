"""The verbs, one a stage of the data flow and one a file: the options of each, and a thin call into its package.

Everything heavy is imported inside the verb, so that `--help` never loads torch. An option that a verb cannot obey
is refused here or by the package that it is meant for.
"""

from __future__ import annotations

from typing import Any

from spikevrt.verbs import (
    accept,
    align,
    app,
    bench,
    config,
    convert,
    demo,
    evaluate,
    export,
    inspect,
    prepare,
    report,
    restore,
    runs,
    simulate,
    train,
)


def add_verbs(verbs: Any) -> None:
    """Add every verb's parser to the sub-parsers `verbs`, in the order of the data flow. Imports nothing heavy."""
    for verb in (
        simulate, inspect, align, convert, prepare, config, train, runs, restore, evaluate, bench, report, accept,
        export, demo, app,
    ):  # fmt: skip
        verb.add(verbs)
