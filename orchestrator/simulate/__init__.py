"""A fleet in simulated time (`run`), around the decisions and the planner that ship.

And a vLLM engine without a model (`engine`), for machines without GPUs: it speaks vLLM's HTTP API,
with its batching, its metrics and, when asked, its failures, and imports nothing of the product.
"""
