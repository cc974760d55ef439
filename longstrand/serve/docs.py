"""A page about the addresses, made from the OpenAPI description; no script, nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}code{font-size:.95em}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{border:1px solid #999;padding:.2rem .6rem;"
    "text-align:left;vertical-align:top}h2{margin-bottom:0;font-size:1.1rem}"
)


def docs_page(description: dict[str, Any]) -> str:
    """Write the page.

    Args:
        description: OpenAPI, as FastAPI makes it.
    """
    schemas = description.get("components", {}).get("schemas", {})
    parts = []
    for path, methods in description["paths"].items():
        for method, one in methods.items():
            parts.append(
                f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(one.get('description', ''))}</p>"
            )
            rows = [(entry["name"], entry["schema"], entry.get("required")) for entry in one.get("parameters", ())]
            content = one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            body = schemas.get(content.get("$ref", "").rsplit("/", 1)[-1], {})
            rows += [
                (name, entry, name in body.get("required", ())) for name, entry in body.get("properties", {}).items()
            ]
            if rows:
                lines = "".join(_row(name, entry, needed) for name, entry, needed in rows)
                parts.append(f"<table><tr><th>field<th>type<th>default</tr>{lines}</table>")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(description['info']['title'])}</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style><h1>Addresses of this server</h1>"
        '<p>An input is <code>{"sequence": "ACGT...", "name": "optional"}</code> or <code>{"genome": "NAME", '
        '"region": "chr1:1,001-2,000"}</code>. Regions as text count from 1, both ends included; numbers in JSON '
        '(<code>start</code>, <code>end</code>) count from 0 and exclude the end. Errors have the form <code>{"error": '
        '{"code", "message", "where", "position", "hint", "retry_after", "request_id"}}</code>. '
        f"Machines read <a href=/openapi.json>/openapi.json</a>.</p>{''.join(parts)}</html>"
    )


def _row(name: str, entry: dict[str, Any], required: bool) -> str:
    default = "required" if required else escape(str(entry.get("default", "")))
    return f"<tr><td><code>{escape(name)}</code><td>{escape(_kind(entry))}<td>{default}</tr>"


def _kind(entry: dict[str, Any]) -> str:
    if "enum" in entry:
        return ", ".join(map(str, entry["enum"]))
    if "anyOf" in entry:
        return " or ".join(_kind(one) for one in entry["anyOf"] if one.get("type") != "null")
    if entry.get("type") == "array":
        return f"list of {_kind(entry.get('items', {}))}"
    return str(entry.get("type") or entry.get("$ref", "").rsplit("/", 1)[-1])
