"""`clipd export`: what it writes is ONNX to others, and computes what the server answers."""

import json
import subprocess

import numpy as np
import onnx
import onnxruntime
import pytest
from clip.v1 import clip_pb2 as pb


@pytest.fixture(scope="module")
def exported(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export") / "model"
    subprocess.run([request.config.getoption("--clipd"), "export", f"--out={directory}"], check=True)
    return directory


@pytest.mark.parametrize("name", ["image.onnx", "text.onnx"])
def test_the_graphs_are_valid(exported, name):
    onnx.checker.check_model(exported / name, full_check=True)


def test_the_images_embedding_is_the_servers(exported, clip):
    config = json.loads((exported / "config.json").read_text())
    height, width = config["image_size"]
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(exported / "image.onnx")
    (ours,) = session.run(["embedding"], {"image": pixels[None]})[0]

    rgb = pb.RgbImage(width=width, height=height, pixels=pixels.tobytes())
    request = pb.EmbedRequest(inputs=[pb.Input(image=pb.Image(rgb=rgb))])
    theirs = np.array(clip.Embed(request, timeout=60).results[0].embedding.values)
    assert ours @ theirs / np.linalg.norm(ours) > 0.999999
    assert len(ours) == config["embed_dim"]


def test_the_texts_embedding_is_the_servers(exported, clip):
    tokenizer = json.loads((exported / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    # One token each in any CLIP vocabulary.
    tokens = [vocabulary[token] for token in ["<|startoftext|>", "a</w>", "<|endoftext|>"]]
    session = onnxruntime.InferenceSession(exported / "text.onnx")
    (ours,) = session.run(["embedding"], {"tokens": np.array([tokens], dtype=np.int64)})[0]
    theirs = np.array(clip.Embed(pb.EmbedRequest(inputs=[pb.Input(text="a")]), timeout=60).results[0].embedding.values)
    assert ours @ theirs / np.linalg.norm(ours) > 0.999999


def test_nothing_is_overwritten(request, exported):
    again = subprocess.run(
        [request.config.getoption("--clipd"), "export", f"--out={exported}"], capture_output=True, text=True
    )
    assert again.returncode == 1
    assert "cannot write" in again.stderr and "image.onnx" in again.stderr
