"""Traces of requests: when they arrive and how long they are, never what they say."""
