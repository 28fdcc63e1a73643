import sys

# jsonschema, which nbformat imports, would build a grammar of addresses at every start: seconds.
sys.modules.setdefault("rfc3987_syntax", None)
