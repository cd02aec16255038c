"""Adapters to other libraries. Each is imported by name, and only where its library is installed."""
