"""Running code that a model wrote, where it can neither do harm nor mark its own work."""

from bilora.sandbox.launcher import ProcessSandbox

__all__ = ["ProcessSandbox"]
