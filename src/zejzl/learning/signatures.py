"""What an error says, without what differs each time: numbers, names and ids.

>>> signature("payment 42 of 'Ann Lee' failed at 0x7f3a: see /var/log/x.log")
'payment <n> of <text> failed at <id>: see <path>'
"""

import re

READ = 2000  # characters of a text that are looked at
LENGTH = 200  # characters that a signature has at most

_VARIES = re.compile(
    r"""(?P<url>\b[a-z][a-z0-9+.-]{1,9}://[^\s'"<>]+)
      | (?P<mail>[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{1,64})
      | (?P<text>"[^"\n]{0,300}"|(?<!\w)'[^'\n]{0,300}'(?!\w)|`[^`\n]{0,300}`)
      | (?P<path>(?<![\w/<])(?:/[\w.@+-]+){2,}/?|\b[A-Za-z]:\\[^\s'"]+)
      | (?P<id>\b0x[0-9a-fA-F]+\b
              |\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b
              |\b(?=[0-9a-fA-F]*[0-9])(?=[0-9]*[a-fA-F])[0-9a-fA-F]{7,}\b
              |\b(?=\w*[A-Za-z_])(?=\w*[0-9])\w{2,}\b)
      | (?P<n>(?<!\w)[-+]?[0-9]+(?:[.,:][0-9]+)*(?!\w))
    """,
    re.VERBOSE,
)


def signature(text: str) -> str:
    """Return the text with what varies replaced by `<what it is>`, in at most 200 characters."""
    plain = _VARIES.sub(lambda match: f"<{match.lastgroup}>", text[:READ])
    return " ".join(plain.split())[:LENGTH]
