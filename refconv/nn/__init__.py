"""Layers, losses, optimisers and training in plain array code: enough to train a small grouped network.

>>> import numpy as np
>>> from refconv.nn import SGD, SoftmaxCrossEntropy, residual_network
>>> rng = np.random.default_rng(0)
>>> model = residual_network(4, channels=8, rng=rng)
>>> loss, optimiser = SoftmaxCrossEntropy(), SGD(model.parameters(), lr=0.01)
>>> images, labels = rng.normal(size=(20, 1, 8, 8)).astype("float32"), rng.integers(0, 10, 20)
>>> before = loss(model(images), labels)
>>> grad_images = model.backward(loss.backward())
>>> optimiser.step()
>>> loss(model(images), labels) < before
True
>>> model
Sequential: 1,674 parameters
  conv: Conv(1, 8, 3, padding=1), weight (8, 1, 3, 3), bias (8,): 80 parameters
  relu: ReLU()
  pool1: MaxPool(2, stride=2)
  block1a: Residual: 152 parameters
    relu: ReLU()
    conv: Conv(8, 8, 3, groups=4, padding=1), weight (8, 2, 3, 3), bias (8,): 152 parameters
  block1b: Residual: 152 parameters
    relu: ReLU()
    conv: Conv(8, 8, 3, groups=4, padding=1), weight (8, 2, 3, 3), bias (8,): 152 parameters
  last: ReLU()
  flatten: Flatten()
  linear: Linear(128, 10), weight (10, 128), bias (10,): 1,290 parameters
"""

from refconv.nn.base import Layer, Parameter
from refconv.nn.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from refconv.nn.data import DataError, Split, load_dataset, load_digits_split
from refconv.nn.dropout import Dropout
from refconv.nn.layers import ChannelShuffle, Conv, ConvTranspose, Flatten, Linear, ReLU, Scale, Tanh
from refconv.nn.loss import BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy
from refconv.nn.malloc import keep_memory
from refconv.nn.models import alexnet, alexnet_towers, lenet5, residual_network, tower_state
from refconv.nn.normalisation import BatchNorm, LocalResponseNorm
from refconv.nn.optim import SGD, Adam, Optimiser
from refconv.nn.pooling import AvgPool, MaxPool
from refconv.nn.schedule import parse_schedule
from refconv.nn.sequential import Residual, Sequential
from refconv.nn.summary import Summary, summary
from refconv.nn.towers import Towers
from refconv.nn.training import Recipe, Step, Trainer, accuracy

__all__ = [
    "SGD",
    "Adam",
    "AvgPool",
    "BatchNorm",
    "BinaryCrossEntropy",
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
    "Loss",
    "MaxPool",
    "MeanSquaredError",
    "Optimiser",
    "Parameter",
    "ReLU",
    "Recipe",
    "Residual",
    "Scale",
    "Sequential",
    "SoftmaxCrossEntropy",
    "Split",
    "Step",
    "Summary",
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
    "summary",
    "tower_state",
]
