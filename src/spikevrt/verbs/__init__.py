"""The verbs: one file a stage of the work, with the options of each verb and a thin call into its package.

Everything heavy is imported inside the verb, so that `--help` loads neither torch nor NumPy. An option that a verb
cannot obey is refused here or by the package that it is meant for.
"""

from __future__ import annotations

from typing import Any

from spikevrt.verbs import capturing, restoring, training


def add_verbs(verbs: Any) -> None:
    """Add every verb's parser to the sub-parsers `verbs`, in the order of the data flow. Imports nothing heavy."""
    capturing.add(verbs)
    training.add(verbs)
    restoring.add_restore(verbs)
    training.add_scores(verbs)
    restoring.add_export(verbs)
    restoring.add_demo(verbs)
    restoring.add_app(verbs)
