"""The page on which people use the adapters and say what they think of them."""
