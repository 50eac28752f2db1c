"""The table of captures: known.py and new.py fill it, export.py runs it."""

CAPTURES = {}


class Capture:
    def __init__(self, make, architecture, phase, group):
        self.make, self.architecture, self.phase, self.group = make, architecture, phase, group


def capture(name, architecture, phase, group="known", **arguments):
    """Marks a function that builds a model and its inputs and gives (model, step): step() is recorded, what it
    returns is held until the recording has left. May be put several times on one function."""

    def keep(function):
        CAPTURES[name] = Capture(lambda: function(**arguments), architecture, phase, group)
        return function

    return keep
