"""The sound trainings into which mistakes are planted: other networks, other data, other optimizers."""

from __future__ import annotations

from faults.sick.plant import Setting

LENET_SGD = Setting("lenet", "fashion-mnist", "SGD", 0.1, train=1600, epochs=6)
LENET_MOMENTUM = Setting("lenet", "cifar10", "momentum", 0.02, side=20, train=1600, epochs=6)
LENET_ADAM = Setting("lenet", "digits", "Adam", 2e-3)
VGG_MOMENTUM = Setting("vgg", "cifar10", "momentum", 0.003, side=16, train=1600, epochs=6)
VGG_ADAM = Setting("vgg", "fashion-mnist", "Adam", 1e-3, side=14, train=1600, epochs=6)
VGG_SGD = Setting("vgg", "digits", "SGD", 0.05)
VGG_BN_ADAM = Setting("vgg-bn", "cifar10", "Adam", 2e-3, side=16, train=1600, epochs=6)
VGG_BN_SGD = Setting("vgg-bn", "fashion-mnist", "SGD", 0.05, side=14, train=1600, epochs=6)
VGG_BN_NESTEROV = Setting("vgg-bn", "digits", "Nesterov", 0.02)
RESNET_MOMENTUM = Setting("resnet", "cifar10", "momentum", 0.02, train=1280, epochs=6)
RESNET_ADAMW = Setting("resnet", "digits", "AdamW", 2e-3, decay=0.01, train=800)
RESNET_RMSPROP = Setting("resnet", "fashion-mnist", "RMSprop", 1e-3, side=14, train=1280, epochs=6)
PLAIN_NESTEROV = Setting("plain", "cifar10", "Nesterov", 0.01, train=1280, epochs=6)
PLAIN_ADAM = Setting("plain", "digits", "Adam", 2e-3, train=800)
MLP_SGD = Setting("mlp", "digits", "SGD", 0.1)
MLP_ADAM = Setting("mlp", "fashion-mnist", "Adam", 1e-3, train=1600, epochs=6)
MLP_RMSPROP = Setting("mlp", "digits", "RMSprop", 1e-3)
GELU_ADAMW = Setting("gelu", "cifar10", "AdamW", 1e-3, decay=0.01, side=16, train=1600, epochs=6)
GELU_MLP_ADAMW = Setting("gelu-mlp", "fashion-mnist", "AdamW", 1e-3, decay=0.01, train=1600, epochs=6)
TANH_MOMENTUM = Setting("tanh", "fashion-mnist", "momentum", 0.02, train=1600, epochs=6)
TANH_ADAM = Setting("tanh", "cifar10", "Adam", 1e-3, side=16, train=1600, epochs=6)
TANH_MLP_SGD = Setting("tanh-mlp", "digits", "SGD", 0.1)
FUNCTIONAL_ADAM = Setting("functional", "digits", "Adam", 2e-3)
FUNCTIONAL_NESTEROV = Setting("functional", "fashion-mnist", "Nesterov", 0.02, train=1600, epochs=6)
FUNCTIONAL_RMSPROP = Setting("functional", "cifar10", "RMSprop", 1e-3, side=16, train=1600, epochs=6)
# Fine-tuning: photographs of ants and bees, ImageNet weights under a new head.
SQUEEZENET_ADAM = Setting(
    "squeezenet", "ants-bees", "Adam", 1e-4, side=64, train=240, validation=120, epochs=4, batch_size=8
)
SQUEEZENET_MOMENTUM = Setting(
    "squeezenet", "ants-bees", "momentum", 3e-4, side=64, train=240, validation=120, epochs=4, batch_size=8
)
