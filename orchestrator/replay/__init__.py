"""Replaying a trace against a running endpoint, as an ordinary OpenAI client.

Reads traces, sends them open-loop, watches the controller, reports and plots. Imports `config`.
"""
