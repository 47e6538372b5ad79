"""Layers, loss, optimiser and training in plain array code: enough to train a small grouped network by hand.

>>> import numpy as np
>>> from refconv.nn import SGD, SoftmaxCrossEntropy, residual_network
>>> rng = np.random.default_rng(0)
>>> model = residual_network(4, channels=8, rng=rng)
>>> loss, optimiser = SoftmaxCrossEntropy(), SGD(model.parameters(), lr=0.01)
>>> images, labels = rng.normal(size=(20, 1, 8, 8)).astype("float32"), rng.integers(0, 10, 20)
>>> before = loss.forward(model.forward(images), labels)
>>> grad_images = model.backward(loss.backward())
>>> optimiser.step()
>>> loss.forward(model.forward(images), labels) < before
True
"""

from refconv.nn.base import Layer, Parameter, Residual, Sequential
from refconv.nn.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from refconv.nn.data import DataError, Split, load_dataset, load_digits_split
from refconv.nn.dropout import Dropout
from refconv.nn.layers import ChannelShuffle, Conv, ConvTranspose, Flatten, Linear, ReLU, Scale, Tanh
from refconv.nn.loss import SoftmaxCrossEntropy
from refconv.nn.malloc import keep_memory
from refconv.nn.models import alexnet, alexnet_towers, lenet5, residual_network, tower_state
from refconv.nn.normalisation import BatchNorm, LocalResponseNorm
from refconv.nn.optim import SGD
from refconv.nn.pooling import AvgPool, MaxPool
from refconv.nn.schedule import parse_schedule
from refconv.nn.towers import Towers
from refconv.nn.training import Recipe, Step, Trainer, accuracy

__all__ = [
    "SGD",
    "AvgPool",
    "BatchNorm",
    "ChannelShuffle",
    "Checkpoint",
    "CheckpointError",
    "Conv",
    "ConvTranspose",
    "DataError",
    "Dropout",
    "Flatten",
    "Layer",
    "Linear",
    "LocalResponseNorm",
    "MaxPool",
    "Parameter",
    "ReLU",
    "Recipe",
    "Residual",
    "Scale",
    "Sequential",
    "SoftmaxCrossEntropy",
    "Split",
    "Step",
    "Tanh",
    "Towers",
    "Trainer",
    "accuracy",
    "alexnet",
    "alexnet_towers",
    "keep_memory",
    "lenet5",
    "load_checkpoint",
    "load_dataset",
    "load_digits_split",
    "parse_schedule",
    "residual_network",
    "save_checkpoint",
    "tower_state",
]
