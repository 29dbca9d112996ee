"""Drawing: SVG art, fonts, colors, characters, objects, backgrounds and styles, rendered to pixels."""
