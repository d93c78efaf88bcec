"""SpikeVRT: sharp colour video from a blurry colour camera and a spike camera.

Nothing is imported here, so that `spikevrt --help` answers at once; import what you need from its own module, in the
order that the data flows: recording, simulate, represent, align, data, model, train, restore, evaluate, demo.
"""

__version__ = "0.1.0"
