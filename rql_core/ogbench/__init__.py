"""OGBench's manipulation and maze tasks: their environments, their files, and play data made by their oracles.

The modules are imported by name (``files``, ``environments``, ``generate``), because what the worker processes of
``generate`` need must come without torch.
"""
