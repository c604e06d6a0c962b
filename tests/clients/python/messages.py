"""What client.py and client_asyncio.py send, and how they show what they get."""

import os
import pathlib
import sys

import grpc
from clip.v1 import clip_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from settings import TIMEOUT

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]


def content(source):
    """A picture, if it is the path of a file, and otherwise a text."""
    if os.path.isfile(source):
        return pb.Input(image=pb.Image(encoded=pathlib.Path(source).read_bytes()))
    return pb.Input(text=source)


def embed_request(sources):
    return pb.EmbedRequest(inputs=map(content, sources))


def stream_request(tag, source):
    timeout = Duration()
    timeout.FromMilliseconds(int(TIMEOUT * 1000))
    return pb.StreamEmbedRequest(tag=tag, input=content(source), timeout=timeout)


def classify_request(labels, pictures):
    images = [pb.Image(encoded=pathlib.Path(picture).read_bytes()) for picture in pictures]
    return pb.ClassifyRequest(images=images, labels=pathlib.Path(labels).read_text().splitlines())


def show_embeddings(sources, results):
    """How similar each is to the first. Its own error stands in the place of one that has none."""
    failed = 0
    first = results[0].embedding.values
    for source, result in zip(sources, results, strict=True):
        if result.HasField("error"):
            failed += 1
            print("error", source, f"{result.error.field}: {result.error.message}", sep="\t")
        else:
            # Embeddings have unit length, so their dot product is the cosine.
            cosine = sum(a * b for a, b in zip(first, result.embedding.values, strict=True))
            print(f"{cosine:.3f}", source, sep="\t")
    sys.exit(1 if failed else 0)


def show_predictions(pictures, results):
    """The best label of each, and how many there are."""
    failed = 0
    for picture, result in zip(pictures, results, strict=True):
        if result.HasField("error"):
            failed += 1
            print("error", picture, f"{result.error.field}: {result.error.message}", sep="\t")
        else:
            predictions = result.predictions.predictions
            print(predictions[0].label, picture, len(predictions), sep="\t")
    sys.exit(1 if failed else 0)
