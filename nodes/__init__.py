"""The runnable nodes: ``python -m nodes.broker|env|grid|device FILE [ID] [--connect HOST:PORT,PORT]``."""
