"""Makes a full-size checkpoint with random weights, and what the reference computes with it.

    python tests/full_size/make.py MODEL DIRECTORY

MODEL is a name that open_clip knows, such as ViT-B-16, or `transformers` for a CLIPModel of Hugging Face's
library in its default size (ViT-B/32). With -outliers behind it, it has what trained models have and 8 bits suffer from
(see `planted`). DIRECTORY becomes a model directory as users have them, and also gets
    pictures/              64 pictures of many sizes, PNG and JPEG
    texts.json             64 texts
    reference.safetensors  images and texts, float32 [64, embed_dim], normalised
"""

import json
import sys
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import image_transform
from PIL import Image, ImageDraw
from safetensors.torch import save_file

COUNT = 64
BUILTIN_TOKENIZER = Path(__file__).parents[2] / "src/model/builtin/tokenizer.json"
WORDS = "a photo of two red dogs on the beach, sunset over São Paulo! 7 naïve cats; 東京 rain 🙂 don't".split()


def main():
    name, directory = sys.argv[1], Path(sys.argv[2])
    (directory / "pictures").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    make = transformers_model if name == "transformers" else open_clip_model
    encode_image, encode_text, preprocess = make(name, directory)
    write_tokenizer(directory)
    pictures, texts = draw(directory / "pictures"), write_texts(directory)
    tokens = SimpleTokenizer()(texts)
    with torch.no_grad():
        images = torch.cat([encode_image(preprocess(Image.open(picture))[None]) for picture in pictures])
        texts = encode_text(tokens)
    normalised = {"images": images, "texts": texts}
    normalised = {key: value / value.norm(dim=-1, keepdim=True) for key, value in normalised.items()}
    save_file(normalised, directory / "reference.safetensors")


def open_clip_model(name, directory):
    plain = name.removesuffix("-outliers")
    model = shaken(open_clip.create_model(plain))
    if plain != name:
        planted(model)
    name = plain
    save_file({key: value.contiguous() for key, value in model.state_dict().items()},
              directory / "open_clip_model.safetensors")
    keys = ("mean", "std", "interpolation", "resize_mode")
    preprocess = {key: value for key, value in model.visual.preprocess_cfg.items() if key in keys}
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": preprocess}
    (directory / "open_clip_config.json").write_text(json.dumps(config, indent=2))
    size = model.visual.image_size
    return model.encode_image, model.encode_text, image_transform(size, is_train=False, **preprocess)


def transformers_model(_, directory):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    ends = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    model = shaken(CLIPModel(CLIPConfig(text_config=ends)))
    model.save_pretrained(directory)
    CLIPImageProcessor().save_pretrained(directory)

    def embedded(features):
        return getattr(features, "pooler_output", features)

    # Pillow's resize for both: the library's own resize of tensors differs from it by a rounding.
    return (
        lambda pixels: embedded(model.get_image_features(pixel_values=pixels)),
        # Rows are cut or padded after the end token, where the causal mask hides everything.
        lambda tokens: embedded(model.get_text_features(input_ids=tokens)),
        image_transform(model.config.vision_config.image_size, is_train=False),
    )


def shaken(model):
    """As initialised, biases are 0 and norms 1: a mistake there would not show."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 1:
                value.add_(0.1 * torch.randn(value.shape, generator=random))
    return model.eval()


def planted(model):
    """Outliers: channels of norms and of attention's values that are 30 to 100 times as large, and weights behind them
    as much smaller, so that the model computes what it did; and a token that others attend to for want of anything
    better, with one number a hundred times as large as all others (Xiao et al. 2023, on attention sinks), which does change it."""
    random = np.random.default_rng(9)

    def some(width):
        factors = torch.from_numpy(random.uniform(30, 100, 6).astype(np.float32))
        return torch.from_numpy(random.choice(width, 6, replace=False)), factors

    with torch.no_grad():
        for positions, transformer in [
            (model.visual.positional_embedding, model.visual.transformer),
            (model.positional_embedding, model.transformer),
        ]:
            width = transformer.width
            # Behind the class token; before every text.
            positions[1 if transformer is model.visual.transformer else 0, 7] += 100
            for block in transformer.resblocks:
                attention = block.attn
                for norm, weight in [(block.ln_1, attention.in_proj_weight), (block.ln_2, block.mlp.c_fc.weight)]:
                    channels, factors = some(width)
                    norm.weight[channels] *= factors
                    norm.bias[channels] *= factors
                    weight[:, channels] /= factors
                channels, factors = some(width)
                attention.in_proj_weight[2 * width + channels] *= factors[:, None]
                attention.in_proj_bias[2 * width + channels] *= factors
                attention.out_proj.weight[:, channels] /= factors


def write_tokenizer(directory):
    """A tokenizer.json with OpenAI's vocabulary, in the form of the built-in model's."""
    reference = SimpleTokenizer()
    vocabulary = dict(reference.encoder)
    vocabulary["<|startoftext|>"] = vocabulary.pop("<start_of_text>")
    vocabulary["<|endoftext|>"] = vocabulary.pop("<end_of_text>")
    file = json.loads(BUILTIN_TOKENIZER.read_text())
    file["truncation"] = file["padding"] = None
    file["model"]["vocab"] = vocabulary
    file["model"]["merges"] = [list(pair) for pair in sorted(reference.bpe_ranks, key=reference.bpe_ranks.get)]
    file["added_tokens"] = [token for token in file["added_tokens"] if token["content"] in vocabulary]
    for token in [*file["added_tokens"], *file["post_processor"]["special_tokens"].values()]:
        if "ids" in token:
            token["ids"] = [vocabulary[token["id"]]]
        else:
            token["id"] = vocabulary[token["content"]]
    (directory / "tokenizer.json").write_text(json.dumps(file))


def draw(directory):
    random = np.random.default_rng(2)
    paths = []
    for number in range(COUNT):
        width, height = (int(side) for side in random.integers(40, 900, 2))
        noise = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        shapes = ImageDraw.Draw(picture)
        for _ in range(number % 7):
            left, top = (int(random.integers(0, side)) for side in (width, height))
            shapes.ellipse((left, top, left + width // 3, top + height // 3), tuple(random.integers(0, 256, 3).tolist()))
        path = directory / f"{number:02}.{'jpg' if number % 2 else 'png'}"
        picture.save(path, quality=85)
        paths.append(path)
    return paths


def write_texts(directory):
    random = np.random.default_rng(3)
    # From one word to more than the context holds.
    texts = [" ".join(random.choice(WORDS, 1 + number * number // 40)) for number in range(COUNT)]
    (directory / "texts.json").write_text(json.dumps(texts))
    return texts


if __name__ == "__main__":
    main()
