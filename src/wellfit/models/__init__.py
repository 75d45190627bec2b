"""Models: our own nets, and torchvision's, timm's and the user's under one roof."""
