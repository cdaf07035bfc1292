"""Trunkline's server: a gRPC router for language-model traffic."""
