"""Text that is safe to stand in a stanza, whatever somebody wrote."""

import re
from xml.sax.saxutils import escape

STANZAS_NS = "urn:ietf:params:xml:ns:xmpp-stanzas"
"""The namespace of error conditions (RFC 6120 section 8.3.3)."""

# The characters that XML 1.0 section 2.2 allows. Any other would end the whole stream, not only this stanza.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Unescaped line breaks and tabs in an attribute would be read back as spaces (XML 1.0 section 3.3.3).
_QUOTED = {'"': "&quot;", "'": "&apos;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
# Almost every value has only characters that stand for themselves: then one look is enough, and takes a quarter.
_NOT_PLAIN = re.compile("[^ !#-%(-;=?-~]")


def escape_text(text: str) -> str:
    """Return `text` escaped for an element's content. A character that XML forbids becomes U+FFFD."""
    return escape(_legal(text), {"\r": "&#13;"})


def quote(value: str) -> str:
    """Return `value` as an attribute's value, with its quotes; a character that XML forbids becomes U+FFFD."""
    if _NOT_PLAIN.search(value) is None:
        return f"'{value}'"
    return "'" + escape(_legal(value), _QUOTED) + "'"


def id_attribute(stanza_id: str | None) -> str:
    """Return the attribute `id` with a space before it, or nothing when there is no id."""
    return f" id={quote(stanza_id)}" if stanza_id else ""


def _legal(text: str) -> str:
    return text if text.isprintable() else _NOT_XML.sub("\ufffd", text)  # what XML forbids is never printable
