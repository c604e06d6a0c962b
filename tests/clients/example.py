"""Prints how similar a picture and a text are: example.py ADDRESS IMAGE TEXT"""

import sys

import grpc
import numpy as np
from clip.v1 import clip_pb2 as pb
from clip.v1.clip_pb2_grpc import ClipServiceStub

address, path, text = sys.argv[1:]
with open(path, "rb") as file:
    image = pb.Image(encoded=file.read())

with grpc.insecure_channel(address) as channel:
    inputs = [pb.Input(image=image), pb.Input(text=text)]
    # Bytes become an array at once, where `values` would be a list of Python's floats.
    request = pb.EmbedRequest(inputs=inputs, embedding_format=pb.EMBEDDING_FORMAT_FLOAT32_BYTES)
    results = ClipServiceStub(channel).Embed(request, timeout=10).results

for result in results:
    if result.HasField("error"):
        sys.exit(f"{result.error.field}: {result.error.message}")

# Embeddings have unit length, so their dot product is the cosine.
a, b = (np.frombuffer(result.embedding.packed, "<f4") for result in results)
print(f"{a @ b:.3f}")
