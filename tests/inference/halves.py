"""Which precision a module asks of its forward passes."""


def recorded(monkeypatch, module):
    """What `module` says of half precision with each pass, a list that grows."""
    asked = []

    def forward(network, windows, half):
        asked.append(half)
        return network(windows)

    monkeypatch.setattr(module, "forward", forward)
    return asked
