"""BiLoRA: an adapter factory. One frozen base model, one small LoRA adapter per task."""

__version__ = "0.1.0"
