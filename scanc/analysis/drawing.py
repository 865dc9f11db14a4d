"""The dependence graph of a step as pictures: DOT for graphviz, and SVG drawn here for those without it."""

from __future__ import annotations

from html import escape

import networkx as nx

from scanc.analysis.dependence import value_graph
from scanc.ir.nodes import Program, RegionKind
from scanc.ir.printer import print_op

_FILL = {"input": "#dbeafe", "param": "#fef3c7", "state": "#dcfce7", "value": "#ffffff"}
_LOOP = "#fee2e2"
_BOX_HEIGHT, _ROW, _GAP, _CHAR = 26, 64, 18, 7.2


def to_dot(program: Program) -> str:
    """The graph in the DOT language; a dashed edge carries a state to the next step."""
    graph = _annotated(program)
    lines = [f'digraph "{program.name}" {{', "  rankdir=TB; node [shape=box, style=filled, fontname=monospace];"]
    for name, data in graph.nodes(data=True):
        lines.append(f'  "{name}" [label="{_quote(data["label"])}", fillcolor="{data["fill"]}"];')
    lines += [f'  "{source}" -> "{target}";' for source, target in graph.edges]
    lines += [f'  "{value}" -> "{state}" [style=dashed, constraint=false];' for state, value in program.next]
    return "\n".join([*lines, "}"]) + "\n"


def to_svg(program: Program) -> str:
    """The same graph as a standalone SVG: one row per depth, inputs above, dashed lines back to the states."""
    graph = _annotated(program)
    place, width, height = _layout(graph)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="monospace" font-size="12">',
        f"<title>{escape(program.name)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    half = _BOX_HEIGHT / 2
    for source, target in graph.edges:
        (x0, y0), (x1, y1) = place[source], place[target]
        parts.append(_line(x0, y0 + half, x1, y1 - half, "#64748b", ""))
    for state, value in program.next:
        if value != state:
            (x0, y0), (x1, y1) = place[value], place[state]
            parts.append(_line(x0, y0 - half, x1, y1 + half, "#16a34a", ' stroke-dasharray="5 4"'))
    for name, data in graph.nodes(data=True):
        x, y = place[name]
        w = _width(data["label"])
        parts.append(
            f'<rect x="{x - w / 2:.1f}" y="{y - half:.1f}" width="{w:.1f}" height="{_BOX_HEIGHT}" rx="4" '
            f'fill="{data["fill"]}" stroke="#334155"/>'
        )
        parts.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escape(data["label"])}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _annotated(program: Program) -> nx.DiGraph:
    """The value graph with a label and a colour for each node."""
    graph = value_graph(program)
    labels = {instr.name: f"{instr.name} = {print_op(instr.op)}" for instr in program.instrs}
    looped = {instr.name for region in program.regions if region.kind is RegionKind.LOOP for instr in region.instrs} | {
        region.scan.result for region in program.regions if region.kind is RegionKind.SCAN and region.scan
    }
    types = program.types
    for name, data in graph.nodes(data=True):
        data["label"] = f"{labels.get(name, name)} [{', '.join(types[name].axes)}]"
        data["fill"] = _LOOP if name in looped else _FILL[data["kind"]]
    return graph


def _layout(graph: nx.DiGraph) -> tuple[dict[str, tuple[float, float]], float, float]:
    """A row per topological generation, centred; the centre of each box, and the size of the picture."""
    rows = [list(row) for row in nx.topological_generations(graph)]
    widths = [sum(_width(graph.nodes[n]["label"]) + _GAP for n in row) for row in rows]
    total = max(widths, default=0) + _GAP
    place = {}
    for i, (row, width) in enumerate(zip(rows, widths, strict=True)):
        x = (total - width + _GAP) / 2
        for name in row:
            w = _width(graph.nodes[name]["label"])
            place[name] = (x + w / 2, _ROW * (i + 0.5))
            x += w + _GAP
    return place, total, _ROW * len(rows)


def _width(label: str) -> float:
    return _CHAR * len(label) + 16


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, style: str) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}"{style}/>'


def _quote(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
