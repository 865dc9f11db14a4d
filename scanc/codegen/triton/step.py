"""The instructions of a fused step, line by line, and the loads before them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scanc.codegen.expressions import Expr, absorbed
from scanc.codegen.triton.expressions import Speller, Tile
from scanc.codegen.triton.tiles import Buffer, Frame
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Index, Instr, Kind, Program, RegionKind, Tensor
from scanc.passes.schedule import Axes, Schedule


@dataclass(frozen=True)
class Read:
    """A tile that is loaded: `value` is its name, of a tensor or of slices of it (`fixed` axes at one position)."""

    value: str
    tensor: str
    axes: Axes
    kind: Kind
    fixed: tuple[tuple[str, int], ...] = ()


def reads(program: Program, tensors: Iterable[Tensor]) -> list[Read]:
    """What is loaded of some inputs or params: all of each, or its slices alone where only those are used."""
    users: dict[str, list[Instr]] = {}
    for instr in program.instrs:
        for arg in instr.args:
            users.setdefault(arg, []).append(instr)
    leaving = {value for _, value in program.next} | {o.value for o in (*program.outputs, *program.totals)}
    found: list[Read] = []
    for tensor in tensors:
        own = users.get(tensor.name, [])
        if tensor.name not in leaving and own and all(isinstance(user.op, Index) for user in own):
            for user in own:
                assert isinstance(user.op, Index)
                fixed = ((user.op.axis, user.op.position),)
                found.append(Read(user.name, tensor.name, user.type.axes, user.type.kind, fixed))
        elif own or tensor.name in leaving:
            found.append(Read(tensor.name, tensor.name, tensor.type.axes, tensor.type.kind))
    return found


class Step:
    """Writes a fused program's instructions; `key` gives a value's key among the kernel's names."""

    def __init__(
        self,
        out: Writer,
        frame: Frame,
        program: Program,
        schedule: Schedule,
        key: Callable[[str], str] = lambda name: name,
    ) -> None:
        self.out = out
        self.frame = frame
        self.program = program
        self.schedule = schedule
        self.key = key
        self.speller = Speller(frame)
        self.tiles: dict[str, Tile] = {}
        self.scattered: frozenset[str] = frozenset()
        self._types = program.types
        self._leaving = [value for _, value in program.next]
        self._leaving += [output.value for output in (*program.outputs, *program.totals)]

    # --- values ---

    def identifier(self, value: str) -> str:
        """The variable that holds a value."""
        return self.frame.names.of(self.key(value))

    def parts(self, value: str) -> str:
        """The variable that holds the shares of lanes in a sum, of several steps."""
        return self.frame.names.of(f"{self.key(value)}#parts")

    def axes(self, value: str) -> Axes:
        return self._types[value].axes

    def define(self, value: str) -> str:
        """Says that `value` stands in a variable; returns its name."""
        type_ = self._types[value]
        identifier = self.identifier(value)
        self.tiles[value] = Tile(Expr(identifier), self.frame.tile(type_.axes), type_.kind)
        return identifier

    def tensor(self, value: str) -> str:
        """The value as a whole tile of its own axes."""
        return self.speller.tensor(self.tiles[value]).text

    def operand(self, user: str, value: str) -> Tile:
        """A value as an instruction reads it."""
        return self._guarded(self.tiles[value], self.schedule.guards(user, value))

    def next_value(self, state: str) -> str:
        """The next value of a state."""
        tile = self.tiles[self.program.next_of[state]]
        return self.speller.tensor(self._guarded(tile, self.schedule.guards("next", state))).text

    def _guarded(self, tile: Tile, once: Axes) -> Tile:
        """Nothing in all programs but the first, where a whole value meets a partial sum."""
        if not once:
            return tile
        text = f"tl.where({self.frame.lead(once)}, {self.speller.tensor(tile).text}, 0.0)"
        return Tile(Expr(text), tile.axes, tile.kind)

    # --- turns ---

    def take(self, values: Sequence[str], lanes: str) -> dict[str, Tile]:
        """Takes values of the step `u` from the lanes that have them; returns the tiles of all lanes' steps."""
        turned = {value: self.tiles[value] for value in values}
        for value, tile in turned.items():
            name = self.frame.names.of(f"{self.key(value)}#now")
            comment = self.frame.comment(self._types[value].axes)
            self.out.line(f"{name} = tlmath.from_lane({self.tensor(value)}, u % share, share, {lanes})", comment)
            self.tiles[value] = Tile(Expr(name), tile.axes, tile.kind)
        return turned

    def give(self, values: Sequence[str], first: str) -> None:
        """Gives values of the step `u` to the lanes whose step it is; `first`: the place of a turn's first step."""
        for value in values:
            tile = self.tiles[value]
            name = self.frame.names.of(f"{self.key(value)}#turn")
            kept = f"{self.tensor(value)} if u % share == {first} else "
            self.out.line(f"{name} = {kept}tl.where(turn == u % share, {self.tensor(value)}, {name})")
            self.tiles[value] = Tile(Expr(name), tile.axes, tile.kind)

    # --- loads ---

    def write_params(self, found: Sequence[Read], buffers: Mapping[str, Buffer]) -> None:
        """Loads of what stays the same at every step."""
        for read in found:
            name = self.frame.names.fresh(f"{self.identifier(read.value)}_at")
            self.out.line(
                f"{name} = {self.frame.address(buffers[read.tensor], dict(read.fixed))}", self.frame.comment(read.axes)
            )
            self.write_load(read.value, name)

    def write_load(self, value: str, address: str, once: Axes = ()) -> None:
        """Loads a value's tile; `once`: the axes of which the first program alone gets it."""
        type_ = self._types[value]
        load = self.frame.load(address, type_.axes, type_.kind, once)
        self.out.line(f"{self.define(value)} = {load}", self.frame.comment(type_.axes))

    # --- instructions ---

    def instrs(self, kind: RegionKind) -> tuple[Instr, ...]:
        """The instructions of all regions of one kind."""
        return tuple(instr for region in self.program.regions if region.kind is kind for instr in region.instrs)

    def write(self, instrs: Sequence[Instr]) -> None:
        """One line per instruction, short temporaries inside the line that reads them, spec lines as comments."""
        instrs = [instr for instr in instrs if instr.name not in self.tiles]
        here = {instr.name for instr in instrs}
        outside = [arg for instr in self.program.instrs if instr.name not in here for arg in instr.args]
        inline = absorbed(instrs, [*self._leaving, *outside])
        line = 0
        for instr in instrs:
            args = [self.operand(instr.name, arg) for arg in instr.args]
            tile = self.speller.spell(instr, args, within=instr.name in self.scattered)
            if instr.name in inline or tile.expr.text.isidentifier():
                self.tiles[instr.name] = tile
                continue
            if instr.span is not None and instr.span.line != line:
                line = instr.span.line
                self.out.comment(f"spec line {line}")
            self.out.line(f"{self.define(instr.name)} = {tile.text}", self.frame.comment(instr.type.axes))
