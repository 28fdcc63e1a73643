"""The offline stand-ins: a small world whose truth is known, a simulated API, a tiny base model.

They exist so that the whole course runs without a network, a key or a GPU, and so that a judge or a
filter can be checked against the truth. They are simulations and say so: nothing that they answer
tells anything about a real model.
"""
