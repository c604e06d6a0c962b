"""Fits a linear head on embeddings, and saves it as a classifier that clipd serves."""

import json

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression


def fit(embeddings, labels):
    """`embeddings` [n, dim] as clipd returns them, of unit length; three classes or more."""
    # Unit vectors differ little, so the weights must be allowed to be large.
    return LogisticRegression(C=100, max_iter=2000).fit(embeddings, labels)


def save(head, folder, name):
    """Writes NAME.toml and NAME.safetensors into the folder given to clipd as --classifiers."""
    # scikit-learn's coefficients lie column by column; safetensors would save them in that order.
    tensors = {
        "weight": np.ascontiguousarray(head.coef_, np.float32),
        "bias": np.ascontiguousarray(head.intercept_, np.float32),
    }
    save_file(tensors, folder / f"{name}.safetensors")
    labels = json.dumps([str(label) for label in head.classes_])
    (folder / f"{name}.toml").write_text(f'labels = {labels}\nhead = "{name}.safetensors"\n')
