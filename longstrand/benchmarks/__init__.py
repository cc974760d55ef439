"""Benchmarks: tasks with their builders, checks of their data, ways to use a model, and one honest table."""
