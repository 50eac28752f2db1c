"""djinn.snapshot(): what is recorded, as a file that `djinn plan show` and `djinn plan replay` read."""

import os

from . import _C
from ._errors import InvalidError

PHASES = (None, "prefill", "decode", "vision", "diffusion", "speech", "recommendation", "training")


def name_model(model):
    """Its parameters and buffers are called so in snapshots from here on."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type == "djinn":
            _C.name_storage(tensor, name)


class snapshot:
    """Programs, sizes and scalars in a file; no tensor's bytes.

        djinn.snapshot("step.djs")                      what this thread has recorded and not sent, now
        with djinn.snapshot("gpt2.djs", phase="decode", model=model):
            model(ids)                                  all that is recorded or sent in the block

    Neither disturbs the recording; the block sends what was recorded before it, and at its end what was
    recorded in it. `model` gives weights the names of its parameters; `phase` is a hint (one of PHASES) that
    wins over what the planner would find by itself; `name` stands in the file in place of the file's name.
    """

    def __init__(self, path, phase=None, name=None, model=None):
        if phase not in PHASES:
            raise InvalidError(f"phase {phase}: one of {', '.join(PHASES[1:])}", -1)
        self.path = os.fspath(path)
        self.name = name or os.path.splitext(os.path.basename(self.path))[0]
        self.phase = PHASES.index(phase)
        if model is not None:
            name_model(model)
        _C.snapshot_write(self.path, self.name, self.phase)

    def __enter__(self):
        _C.flush()
        _C.snapshot_begin()
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            _C.snapshot_end(None, self.name, self.phase)
            return
        try:
            _C.flush()
        finally:
            _C.snapshot_end(self.path, self.name, self.phase)
