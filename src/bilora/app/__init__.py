"""The page on which people use the adapters and rate their answers."""
