"""Prints what a GPU makes of towers that are not CLIP's own, with random weights: cosine to PyTorch in fp32, and rates.

    towers.py CLIPD DEVICE
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import open_clip
import torch
import transformers
from clip.v1 import clip_pb2 as pb
from measure import cosine, served
from safetensors.torch import save_file
from server import Server
from tokenizers import Tokenizer

HOME = Path(__file__).parents[2]
SIDE, VOCABULARY, CONTEXT = 224, 400, 64
TEXTS = ["a dog", "two red cats on a beach", "a photo of rain"]


def siglip(directory, pixels, device):
    """ViT-B/16 with SigLIP's head and texts, in transformers' layout; its vocabulary is that of a fixture."""
    fixture = HOME / "tests/fixtures/golden/siglip-patch8"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((fixture / name).read_bytes())
    transformers.SiglipImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(directory)
    config = transformers.SiglipConfig(
        vision_config={"image_size": SIDE, "patch_size": 16},
        text_config={"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT},
    )
    model = transformers.SiglipModel(config).eval()
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not name.startswith("logit"):
            value.add_(torch.randn_like(value) * 0.02)
    model.save_pretrained(directory)
    tokenizer = Tokenizer.from_file(str(fixture / "tokenizer.json"))
    tokenizer.enable_padding(length=CONTEXT, pad_id=1)
    tokens = torch.tensor([tokenizer.encode(text).ids for text in TEXTS], device=device)
    model.to(device)
    features = (model.get_image_features(pixel_values=pixels), model.get_text_features(input_ids=tokens))
    return [each if torch.is_tensor(each) else each.pooler_output for each in features]


def resnet(directory, pixels, device):
    """ResNet-50 in open_clip's layout, with the vocabulary of the embedded model."""
    config = open_clip.get_model_config("RN50")
    config["text_cfg"]["vocab_size"] = 3072
    model = open_clip.CLIP(**config).eval()
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, directory / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (directory / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    (directory / "tokenizer.json").write_bytes((HOME / "src/model/builtin/tokenizer.json").read_bytes())
    return [model.to(device).encode_image(pixels), None]


def pictures():
    """Smooth ones of the models' size: nothing is left to resize."""
    seeds = torch.randint(0, 256, (32, 3, 8, 8)).float()
    grown = torch.nn.functional.interpolate(seeds, size=(SIDE, SIDE), mode="bicubic")
    return grown.clamp(0, 255).round().byte()


def measure(name, make, clipd, device):
    on_gpu = device != "cpu"
    torch.manual_seed(0)
    shown = pictures()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        directory = Path(folder) / "model"
        directory.mkdir()
        images, texts = make(directory, (shown.to(device) / 255 - 0.5) / 0.5, device)
        raw = shown.permute(0, 2, 3, 1).contiguous().numpy()
        rgb = (pb.RgbImage(width=SIDE, height=SIDE, pixels=picture.tobytes()) for picture in raw)
        inputs = [pb.Input(image=pb.Image(rgb=picture)) for picture in rgb]
        for precision in ["fp16", "fp32"] if on_gpu else ["fp32"]:
            flags = [f"--model={directory}", f"--device={device}", f"--precision={precision}", "--timeout=300s"]
            server = Server(clipd, Path(folder) / "log", *flags)
            try:
                cells = [compared(served(server, inputs), images)]
                if texts is not None:
                    cells.append(compared(served(server, [pb.Input(text=text) for text in TEXTS]), texts))
            finally:
                server.terminate()
                server.wait()
            print(f"| {name}, {precision} | {' | '.join(cells)} |", flush=True)
        load = ["--concurrency=1,256", "--duration=3s", "--connections=8"]
        load = load if on_gpu else ["--concurrency=1", "--duration=1s"]
        file = Path(folder) / "report.json"
        command = [clipd, "bench", "--workload=rgb,texts", "--mode=closed", *load, f"--json={file}"]
        subprocess.run([*command, "--", f"--model={directory}", f"--device={device}"], check=True, capture_output=True)
        for service in json.loads(file.read_text())["services"]:
            rates = ", ".join(f"{load['answered_per_second']:.5g}" for load in service["loads"])
            print(f"| {name}, {service['workload']} a second over gRPC | {rates} |", flush=True)


def compared(embeddings, expected):
    cosines = cosine(embeddings, expected.cpu().numpy())
    return f"{cosines.mean():.6f}, {cosines.min():.6f}"


if __name__ == "__main__":
    print("\n| towers, random weights | images: cosine mean, min | texts |\n|---|---|---|", flush=True)
    for name, make in {"SigLIP B/16": siglip, "ResNet-50": resnet}.items():
        measure(name, make, *sys.argv[1:3])
