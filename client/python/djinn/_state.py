"""The connection of this process: one at a time, made by connect() or at first need."""

mode = None    # "local", "local_remote", "remote" or None
server = None  # the private server of local_remote
address = None  # what connect() was given; None: DJINN_ADDRESS
token = None
