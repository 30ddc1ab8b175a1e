"""Command lines to words, by virsh's rules.

Words are parted by blanks, commands by `;` and line ends. A backslash takes the next character as it is, also in
double quotes; single quotes take everything as it is. A `#` at the beginning of a word starts a comment. An open
single quote ends with the line, an open double quote is an error.
"""

_BLANKS = " \t\r"
_ENDS = ";\n"


class WordsError(Exception):
    """The line cannot be split; the message says why."""


def split(line: str) -> list[list[str]]:
    """Split a line into commands, each a list of at least one word.

    Raises:
        WordsError: a double quote is not closed.
    """
    commands: list[list[str]] = []
    words: list[str] = []
    position = 0
    while position < len(line):
        character = line[position]
        if character in _BLANKS:
            position += 1
        elif character in _ENDS:
            position += 1
            if words:
                commands.append(words)
                words = []
        elif character == "#":
            end = line.find("\n", position)
            position = len(line) if end < 0 else end
        elif line.startswith("\\\n", position):
            position += 2
        else:
            word, position = _word(line, position)
            words.append(word)
    if words:
        commands.append(words)
    return commands


def _word(line: str, position: int) -> tuple[str, int]:
    """The word that begins at a position, and where it ends."""
    pieces: list[str] = []
    quote = ""
    while position < len(line):
        character = line[position]
        if quote == "'":
            if character == "'":
                quote = ""
            else:
                pieces.append(character)
        elif character == "\\":
            position += 1
            escaped = line[position : position + 1]
            pieces.append("" if escaped == "\n" else escaped)
        elif quote:
            if character == quote:
                quote = ""
            else:
                pieces.append(character)
        elif character in "'\"":
            quote = character
        elif character in _BLANKS or character in _ENDS:
            break
        else:
            pieces.append(character)
        position += 1
    if quote == '"':
        raise WordsError('missing "')
    return "".join(pieces), position


def quote(word: str) -> str:
    """A word as one has to write it on a command line."""
    if word and not any(character in " \t\r\n;#'\"\\" for character in word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"
