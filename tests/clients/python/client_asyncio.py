"""client.py with asyncio: the same arguments, settings and output."""

import asyncio
import sys

import grpc
import messages
import settings
from clip.v1 import clip_pb2 as pb
from clip.v1.clip_pb2_grpc import ClipServiceStub

# How often in a row a stream may end without an answer.
FRUITLESS = 5


def connect(target):
    how = {"options": settings.OPTIONS, "compression": settings.COMPRESSION}
    if credentials := settings.credentials():
        return grpc.aio.secure_channel(target, credentials, **how)
    return grpc.aio.insecure_channel(target, **how)


async def stream(clip, sources):
    """The results in the order of the inputs. A stream that ends early is opened again for what has no answer."""
    results = {}
    fruitless = 0
    while unanswered := [tag for tag in range(len(sources)) if tag not in results]:
        answered = len(results)
        # Sent one by one, as the server takes them; so files are read only then.
        requests = (messages.stream_request(tag, sources[tag]) for tag in unanswered)
        ended = None
        try:
            async for result in clip.StreamEmbed(requests):
                # The worker that had it was lost.
                if not (result.HasField("error") and result.error.code == messages.UNAVAILABLE):
                    results[result.tag] = result
        except grpc.aio.AioRpcError as error:
            # The server stops, or the stream was old; or it has no room for another one.
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                raise
            ended = error
        fruitless = fruitless + 1 if len(results) == answered else 0
        if fruitless == FRUITLESS:
            raise ended or TimeoutError("inputs are without an answer")
        await asyncio.sleep(0.1 * fruitless)
    return [results[tag] for tag in range(len(sources))]


async def main(target, call, *arguments):
    async with connect(target) as channel:
        clip = ClipServiceStub(channel)
        model = await clip.GetModel(pb.GetModelRequest(), timeout=settings.TIMEOUT)
        print("model", model.name, model.fingerprint, sep="\t")
        match call:
            case "embed":
                answer = await clip.Embed(messages.embed_request(arguments), timeout=settings.TIMEOUT)
                messages.show_embeddings(arguments, answer.results)
            case "stream":
                messages.show_embeddings(arguments, await stream(clip, arguments))
            case "classify":
                labels, *pictures = arguments
                answer = await clip.Classify(messages.classify_request(labels, pictures), timeout=settings.TIMEOUT)
                messages.show_predictions(pictures, answer.results)
            case _:
                sys.exit(__doc__)


try:
    asyncio.run(main(*sys.argv[1:]))
except grpc.aio.AioRpcError as error:
    sys.exit(f"{error.code().name}: {error.details()}")
