"""The error that everything in this room raises for a bad task, family, observation or action."""


class TaskError(ValueError):
    """A task, a family, or what was handed to one breaks the contract; says what, where and why."""
