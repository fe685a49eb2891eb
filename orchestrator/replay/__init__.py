"""Replaying a trace against a running endpoint, as an ordinary OpenAI client.

Sends traces open-loop, watches the controller, reports and plots. Imports `traces`, `config`.
"""
