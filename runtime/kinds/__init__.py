"""The table of kinds: what each kind of bundle is, how it is opened, and which commands take it."""

from maskrt.runtime.kinds.builtin import BUILTIN
from maskrt.runtime.kinds.table import register_kind

for _kind in BUILTIN:
    register_kind(_kind)
