"""`python -m tests.benchmarks.gateways`: what our gateway costs beside others, in one run."""
