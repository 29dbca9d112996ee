"""Busts composed from avatar definitions (DiceBear's JSON: canvas, components, named variants, color slots).

A definition is a tree of elements with references to components; a picture chooses one variant per component
and one color per slot. A slot may have its own color within one component: (component, slot).
"""

from collections.abc import Mapping
from typing import Any

from .art import pack

# The renderer has no blend modes: such layers become plain ones, weaker by these factors.
_BLEND_OPACITY = {"white": 0.38, "black": 0.62}


def avatar_svg(style: str, variants: Mapping[str, str | None], colors: Mapping[Any, str]) -> str:
    """The SVG body of an avatar, in its definition's coordinates; components without variant are left out."""
    definition = pack()["styles"][style]

    def value(raw: Any, component: str | None) -> str:
        if isinstance(raw, dict):
            slot = raw["name"]
            return colors.get((component, slot), colors.get(slot, "#000000"))
        return str(raw)

    def attributes(element: dict[str, Any], component: str | None) -> str:
        kept_attributes = {key: raw for key, raw in element.get("attributes", {}).items() if key != "class"}
        if "mix-blend-mode" in str(kept_attributes.get("style", "")):
            del kept_attributes["style"]
            weaker = _BLEND_OPACITY.get(str(kept_attributes.get("fill")), 1)
            kept_attributes["opacity"] = str(round(float(kept_attributes.get("opacity", 1)) * weaker, 3))
        return "".join(f' {key}="{value(raw, component)}"' for key, raw in kept_attributes.items())

    def drawn(elements: list[Any], component: str | None) -> str:
        body = ""
        for element in elements:
            if isinstance(element, str):
                continue
            if element["type"] == "element":
                name, inner = element["name"], drawn(element.get("children", []), component)
                body += f"<{name}{attributes(element, component)}>{inner}</{name}>"
            elif element["type"] == "component" and variants.get(element["name"]):
                name = element["name"]
                chosen = definition["components"][name]["variants"][variants[name]]
                body += f"<g{attributes(element, name)}>{drawn(chosen.get('elements', []), name)}</g>"
        return body

    # The root of these definitions has fill="none"; without it mouths and glasses would fill black.
    return f'<g fill="none">{drawn(definition["canvas"]["elements"], None)}</g>'
