"""Running model-written code confined, so that it can do no harm and has no say in its own verdict."""

from bilora.sandbox.launcher import ProcessSandbox

__all__ = ["ProcessSandbox"]
