"""clip_benchmark, unmodified, with two model types more.

    python tests/eval/suite.py eval --model_type clipd --model HOST:PORT --num_workers 0 --no_amp ...
    python tests/eval/suite.py eval --model_type open_clip_dir --model DIR --num_workers 0 --no_amp ...

Every other argument is clip_benchmark's own.

`clipd`: embeddings come from a running server. The suite's model takes tensors; pictures and texts are no tensors, so
what it is given are numbers under which this module keeps them. The server prepares pictures and texts itself: that is
what is judged. `--num_workers 0`: what is kept is kept in this process.

`open_clip_dir`: open_clip's model and transform of a directory, with the tokenizer.json there. open_clip's own
get_tokenizer would take its vocabulary of 49,408 for a configuration that names no tokenizer, as emoji-clip's.

The stubs of proto/clip/v1/clip.proto must be importable as clip.v1.
"""

import sys
from pathlib import Path

import clip_benchmark.cli
import clip_benchmark.models
import grpc
import numpy as np
import open_clip
import torch
from clip.v1 import clip_pb2 as pb
from clip.v1.clip_pb2_grpc import ClipServiceStub
from tokenizers import Tokenizer

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


def load_clipd(model_name: str, pretrained: str, cache_dir: str, device: str):
    model = Clipd(model_name)
    return model, model.transform, model.tokenizer


def load_directory(model_name: str, pretrained: str, cache_dir: str, device: str):
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{model_name}", device=device)
    vocabulary = Tokenizer.from_file(str(Path(model_name) / "tokenizer.json"))
    if vocabulary.padding is None:
        vocabulary.enable_truncation(model.context_length)
        vocabulary.enable_padding(length=model.context_length)

    def tokenizer(texts: list[str]) -> torch.Tensor:
        return torch.tensor([encoding.ids for encoding in vocabulary.encode_batch(texts)])

    return model, transform, tokenizer


LOADERS = {"clipd": load_clipd, "open_clip_dir": load_directory}
clip_benchmark.models.TYPE2FUNC.update(LOADERS)
clip_benchmark.models.MODEL_TYPES.extend(LOADERS)

if __name__ == "__main__":
    sys.exit(clip_benchmark.cli.main())
