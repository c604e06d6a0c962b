"""How to reach clipd: what the channels of client.py and client_asyncio.py have in common."""

import json
import os
import pathlib

import grpc

# Seconds that a call, or an input of a stream, may take.
TIMEOUT = float(os.environ.get("CLIPD_TIMEOUT", "10"))

# Calls are spread over all addresses of the name. What a server refuses, or loses, is sent again: a call changes
# nothing, so it may run twice. A hint of the server when to try (grpc-retry-pushback-ms) is kept to.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "clip.v1.ClipService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ],
}

OPTIONS = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    # Otherwise answers of more than 4 MB are refused here; the server's own limit is 16 MB.
    ("grpc.max_receive_message_length", 32 << 20),
]

# Of requests. It helps texts, vectors and raw pixels; pictures in files are compressed already.
COMPRESSION = grpc.Compression.Gzip


def credentials():
    """TLS with the certificates of CLIPD_CA, and the key over it; None: in the clear, and without the key."""
    if "CLIPD_CA" not in os.environ:
        return None
    tls = grpc.ssl_channel_credentials(pathlib.Path(os.environ["CLIPD_CA"]).read_bytes())
    if "CLIPD_API_KEY" not in os.environ:
        return tls
    # The metadata `authorization: Bearer KEY`, with every call.
    key = grpc.access_token_call_credentials(os.environ["CLIPD_API_KEY"])
    return grpc.composite_channel_credentials(tls, key)
