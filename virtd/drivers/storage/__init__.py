"""The storage driver: pools of images, and the images in them.

Nothing is mirrored: which pools are defined and active is told by files, which volumes there are by the pool itself,
asked each time. Looking at one volume looks at that one only.
"""
