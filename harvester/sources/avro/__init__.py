"""Reads Avro files one block at a time, within bounded memory."""
