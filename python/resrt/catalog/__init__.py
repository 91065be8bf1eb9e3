"""The known networks, their published figures, and the locations of their pretrained weights."""
