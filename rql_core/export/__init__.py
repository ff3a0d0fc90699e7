"""Write a checkpoint's policy as ONNX graphs, which a robot runs without torch."""
