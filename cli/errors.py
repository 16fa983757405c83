"""What ends a command early, and how each ends it. Nothing heavy is imported here."""


class UsageError(Exception):
    """The user's input is wrong. The message is one line: what, where, what to do; the exit code is 2."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training, after the checkpoint was kept. The message says how to go on; the exit code is 130.

    A KeyboardInterrupt, so that a sweep stops too instead of going on with its next job.
    """
