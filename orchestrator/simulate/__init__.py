"""Simulations: a vLLM engine without a model, for machines without GPUs.

Speaks vLLM's HTTP API, with its batching, its metrics and, when asked, its failures. Imports
nothing of the product.
"""
