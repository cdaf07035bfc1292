"""The blocks of the vendor's own tools, and what texts cite.

Blocks that the contract has no part for (server_tool_use, mcp_tool_use and the results of such,
compaction, fallback, and whatever is new) are kept whole, as vendor items, because the vendor
wants them back. A text's citations hold proofs of the vendor's and go back too: they stand in its
signature, and as the contract's citations in the answer.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.references import References

DIALECT = "anthropic"

Block = dict[str, Any]

# The vendor's present versions of what callers may name without one.
_VERSIONS: Mapping[str, str] = {
    "code_execution": "code_execution_20250825",
    "web_fetch": "web_fetch_20250910",
    "web_search": "web_search_20250305",
}
# The names that go with a type, where they are not the type without its version.
_NAMES: Mapping[str, str] = {
    "text_editor_20250124": "str_replace_editor",
    "text_editor": "str_replace_based_edit_tool",
}
_VERSION_LENGTH = len("_20250305")


def builtin_tool(tool: v1.BuiltinTool, path: str) -> Block:
    """One of the vendor's own tools: its type with or without a version, and its options.

    Raises INVALID_REQUEST for a type that is not of this vendor's form.
    """
    kind = _VERSIONS.get(tool.type, tool.type)
    stem, version = kind[:-_VERSION_LENGTH], kind[-_VERSION_LENGTH:]
    if not (stem and version.startswith("_20") and version[1:].isdecimal()):
        raise invalid(path, "this provider has no such tool")
    options = orjson.loads(tool.options_json) if tool.options_json else {}
    if not isinstance(options, dict) or "type" in options:
        raise invalid(f"{path}.options_json", "must be a JSON object without a type")
    name = _NAMES.get(kind) or _NAMES.get(stem) or stem
    return {"type": kind, "name": name, **options}


def returned_block(item: v1.VendorItem, where: str) -> Block | None:
    """The block that a vendor item is; None for another dialect's."""
    if item.dialect != DIALECT:
        return None
    try:
        block: Any = orjson.loads(item.json)
    except orjson.JSONDecodeError:
        block = None
    if not isinstance(block, dict) or block.get("type") != item.type:
        raise invalid(f"{where}.json", "must be a JSON object of the item's type")
    return block


def vendor_part(block: Block, part: v1.Part) -> None:
    """Fills a part from a block that has no other."""
    item = part.vendor_item
    item.dialect = DIALECT
    item.type = block["type"]
    item.json = arguments_text(block)


def arguments_text(arguments: dict[str, Any]) -> str:
    """A JSON object of the vendor's as text, its keys in the vendor's order."""
    try:
        return orjson.dumps(arguments).decode()
    except orjson.JSONEncodeError:
        # Integers beyond 64 bits, or deep nesting: what orjson cannot write, json can.
        return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))


def citations_signature(citations: Sequence[Block]) -> v1.Signature:
    """What a text that cites must come back with."""
    return v1.Signature(
        dialect=DIALECT, value=orjson.dumps({"citations": list(citations)}).decode()
    )


def returned_citations(part: v1.Part) -> list[Block]:
    """The citations that a text came with."""
    if part.signature.dialect != DIALECT or not part.signature.value:
        return []
    try:
        kept = orjson.loads(part.signature.value)
    except orjson.JSONDecodeError:
        return []
    citations = kept.get("citations") if isinstance(kept, dict) else None
    return citations if isinstance(citations, list) else []


def note_citations(
    citations: Sequence[Block], part_index: int, length: int, references: References
) -> None:
    """Notes what a text of some length cites: the vendor cuts its texts so that each citation
    is about the whole of one."""
    for cited in citations:
        source = v1.Source(
            # Documents are known by their place in the request, or by the file they were.
            id=cited.get("file_id") or _document(cited),
            uri=cited.get("url") or cited.get("source") or "",
            title=cited.get("title") or cited.get("document_title") or "",
        )
        citation = v1.Citation(
            part_index=part_index, end=length, quote=cited.get("cited_text") or ""
        )
        references.cite(citation, (source,))


def _document(cited: Block) -> str:
    index = cited.get("document_index")
    return "" if index is None else f"document:{index}"


def note_sources(block: Block, references: References) -> None:
    """Notes the pages in a search's or a fetch's result."""
    content: Any = block.get("content")
    if block["type"] == "web_search_tool_result" and isinstance(content, list):
        for found in content:
            references.source(
                v1.Source(
                    uri=found.get("url") or "",
                    title=found.get("title") or "",
                    published=found.get("page_age") or "",
                )
            )
    elif block["type"] == "web_fetch_tool_result" and content.get("url"):
        document = content.get("content") or {}
        references.source(v1.Source(uri=content["url"], title=document.get("title") or ""))
