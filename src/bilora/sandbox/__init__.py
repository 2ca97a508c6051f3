"""Run model-written code in confined processes, so that it can neither do harm nor influence its verdict."""

from bilora.sandbox.launcher import ProcessSandbox

__all__ = ["ProcessSandbox"]
