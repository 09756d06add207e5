"""Channels of the Python clients, with TLS or without.

TOUCHDOWN_TLS may name a folder with ca.pem, and client.pem with client.key if the server asks for a certificate.
"""

import os
import pathlib

import grpc


def open_channel(address, **options):
    folder = os.environ.get("TOUCHDOWN_TLS")
    if not folder:
        return grpc.insecure_channel(address, **options)
    ca, key, certificate = (read(pathlib.Path(folder, name)) for name in ("ca.pem", "client.key", "client.pem"))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, certificate), **options)


def read(path):
    return path.read_bytes() if path.exists() else None
