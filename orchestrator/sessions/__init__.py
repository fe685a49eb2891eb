"""Conversations: recognized by their history, and never less sensitive than they once were.

Keeps keyed fingerprints, never content. Imports `config` alone.
"""
