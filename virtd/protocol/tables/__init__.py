"""The five programs and the framing layer as literal tables: data, with nothing computed in it."""
