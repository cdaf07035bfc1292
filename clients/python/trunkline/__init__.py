"""Trunkline's Python client: the contract's messages and a thin typed layer over gRPC."""
