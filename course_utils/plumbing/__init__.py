"""What the taught modules stand on and no lesson takes apart: Colab, keys, parts, the network."""
