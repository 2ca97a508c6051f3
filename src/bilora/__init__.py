"""BiLoRA: an adapter factory. One frozen base model, one small LoRA adapter a task."""

__version__ = "0.1.0"
