"""clip_benchmark, unmodified, with one model type more: `clipd`, whose embeddings come from a running server.

    python tests/eval/suite.py eval --model_type clipd --model HOST:PORT --num_workers 0 --no_amp ...

Every other argument is clip_benchmark's own, and without `--model_type clipd` it is clip_benchmark. The suite's model
takes tensors; pictures and texts are no tensors, so what it is given are numbers under which this module keeps them.
The server prepares pictures and texts itself: that is what is judged. `--num_workers 0`: what is kept is kept in this
process.

The stubs of proto/clip/v1/clip.proto must be importable as clip.v1.
"""

import sys

import clip_benchmark.cli
import clip_benchmark.models
import grpc
import numpy as np
import torch
from clip.v1 import clip_pb2 as pb
from clip.v1.clip_pb2_grpc import ClipServiceStub

# Inputs of one Embed.
TOGETHER = 64


class Clipd:
    """As much of a model as clip_benchmark uses."""

    def __init__(self, address: str):
        self.stub = ClipServiceStub(grpc.insecure_channel(address))
        self.kept: list[pb.Input] = []

    def eval(self) -> "Clipd":
        return self

    def keep(self, content: pb.Input) -> int:
        self.kept.append(content)
        return len(self.kept) - 1

    def transform(self, picture) -> torch.Tensor:
        picture = picture.convert("RGB")
        rgb = pb.RgbImage(width=picture.width, height=picture.height, pixels=picture.tobytes())
        return torch.tensor([self.keep(pb.Input(image=pb.Image(rgb=rgb)))])

    def tokenizer(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[self.keep(pb.Input(text=text))] for text in texts])

    def embed(self, numbers: torch.Tensor) -> torch.Tensor:
        kept = [self.kept[number] for number in numbers.flatten().tolist()]
        rows = []
        for first in range(0, len(kept), TOGETHER):
            request = pb.EmbedRequest(
                inputs=kept[first : first + TOGETHER],
                # The suite normalises itself.
                normalization=pb.NORMALIZATION_NONE,
                embedding_format=pb.EMBEDDING_FORMAT_FLOAT32_BYTES,
                # `class` is a keyword.
                **{"class": pb.CLASS_BULK},
            )
            for result in self.stub.Embed(request).results:
                if result.HasField("error"):
                    raise RuntimeError(f"{result.error.field}: {result.error.message}")
                rows.append(np.frombuffer(result.embedding.packed, "<f4"))
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    encode_image = encode_text = embed


def load(model_name: str, pretrained: str, cache_dir: str, device: str):
    model = Clipd(model_name)
    return model, model.transform, model.tokenizer


clip_benchmark.models.TYPE2FUNC["clipd"] = load
clip_benchmark.models.MODEL_TYPES.append("clipd")

if __name__ == "__main__":
    sys.exit(clip_benchmark.cli.main())
