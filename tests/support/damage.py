"""Ways in which bytes of a file come to harm."""

import random


def damaged(data: bytes, source: random.Random, pieces: tuple[bytes, ...] = ()) -> bytes:
    """The bytes with up to six random changes: bits flipped, parts cut off or doubled, strange pieces put in."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 6)):
        place = source.randrange(len(changed) + 1)
        length = source.choice((1, 2, 8, 100))
        kind = source.randrange(6)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << source.randrange(8)
        elif kind == 1:
            del changed[place : place + length]
        elif kind == 2:
            changed[place:place] = changed[place : place + length]
        elif kind == 3 and pieces:
            changed[place:place] = source.choice(pieces)
        elif kind == 4:
            changed[place : place + length] = source.randbytes(length)
        elif source.random() < 0.2:
            del changed[place:]
    return bytes(changed)
