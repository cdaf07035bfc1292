"""The contract as a document: its descriptors, JSON Schema, OpenAPI, and what a payload gets wrong.

All of it is made from the generated stubs, so it is that of the very version that runs. Pure.
"""
