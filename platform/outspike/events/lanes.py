"""Vector instructions for compiled loops: many words at a time, in LLVM's own terms.

A short vocabulary over an LLVM builder, for the code of numba intrinsics. Lanes are numbered from
the lowest address. A mask is one bit a lane, as an integer or as a vector of bits; which is which
is said with each function.
"""

import platform
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, config

#: Of LLVM: values, types and builders have no types that a checker could see.
Value = Any

I1, I8, I16, I32, I64 = (ir.IntType(width) for width in (1, 8, 16, 32, 64))


_config: Any = config
_declared: Any = cgutils.get_or_insert_function

#: What one store past the caches fills (:meth:`Lanes.stream`).
LINE_BYTES = 64

#: Whether loops are compiled at all; the fuzz driver and debuggers turn that off.
COMPILED = not _config.DISABLE_JIT


def compresses_words() -> bool:
    """Whether the processor packs 16-bit lanes, and loops are compiled for it.

    That is AVX-512 VBMI2: Intel from Ice Lake on, AMD from Zen 4 on. Elsewhere LLVM would take it
    apart lane by lane, slower than a loop that is written for one word at a time.
    """
    for_here = COMPILED and _config.CPU_NAME is None and platform.machine() in ("x86_64", "AMD64")
    return for_here and bool(llvm.get_host_cpu_features().get("avx512vbmi2"))


def address(context: Value, builder: Value, kind: Value, array: Value, index: Value) -> Value:
    """Of an array's element; ``kind`` is the type that numba has for the array."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


class Lanes:
    """Code on vectors of ``num`` lanes.

    Args:
        builder: where instructions go.
        num: lanes of every vector, a power of two.
    """

    def __init__(self, builder: Value, num: int) -> None:
        self.builder = builder
        self.num = num

    def vector(self, element: Value) -> Value:
        """The type of ``num`` elements."""
        return ir.VectorType(element, self.num)

    def constant(self, element: Value, values: list[int]) -> Value:
        """Lanes known beforehand."""
        return ir.Constant(
            ir.VectorType(element, len(values)), [ir.Constant(element, value) for value in values]
        )

    def every(self, element: Value, value: int) -> Value:
        """The same constant in all lanes."""
        return self.constant(element, [value] * self.num)

    def spread(self, value: Value) -> Value:
        """A number in all lanes."""
        nothing = ir.Constant(self.vector(value.type), ir.Undefined)
        first = self.builder.insert_element(nothing, value, I32(0))
        return self.builder.shuffle_vector(first, nothing, self.every(I32, 0))

    def load(self, element: Value, pointer: Value) -> Value:
        """Consecutive elements; they may lie anywhere."""
        typed = self.builder.bitcast(pointer, self.vector(element).as_pointer())
        return self.builder.load(typed, align=1)

    def store(self, vector: Value, pointer: Value) -> None:
        """All lanes, to consecutive places."""
        typed = self.builder.bitcast(pointer, vector.type.as_pointer())
        self.builder.store(vector, typed, align=1)

    def stream(self, vector: Value, pointer: Value, num_bytes: int) -> None:
        """As :meth:`store`, past the caches, to a place that is a multiple of the vector's size.

        Args:
            vector, pointer: what and where.
            num_bytes: the vector's size.
        """
        typed = self.builder.bitcast(pointer, vector.type.as_pointer())
        store = self.builder.store(vector, typed, align=num_bytes)
        store.set_metadata("nontemporal", self.builder.module.add_metadata([I32(1)]))

    def equal(self, vector: Value, value: int) -> Value:
        """Bits as a vector: lanes that equal a constant."""
        return self.builder.icmp_unsigned("==", vector, self.every(vector.type.element, value))

    def number(self, bits: Value) -> Value:
        """A vector of bits as an integer of that many bits."""
        return self.builder.bitcast(bits, ir.IntType(self.num))

    def bits(self, number: Value) -> Value:
        """An integer as a vector of bits."""
        return self.builder.bitcast(number, self.vector(I1))

    def first(self, number: Value) -> Value:
        """The lowest lane whose bit is set, as i64; ``num`` where none is."""
        found = self._call("llvm.cttz", number.type, [number, I1(0)])
        return self.builder.zext(found, I64)

    def before(self, lane: Value) -> Value:
        """The bits of all lanes below ``lane``, an i64 of 0 to ``num``, as an integer."""
        ones = self.builder.sub(self.builder.shl(I64(1), lane), I64(1))
        return self.builder.trunc(ones, ir.IntType(self.num))

    def count(self, number: Value) -> Value:
        """How many bits are set, as i64."""
        return self.builder.zext(self._call("llvm.ctpop", number.type, [number]), I64)

    def maximum(self, left: Value, right: Value) -> Value:
        """Lane by lane, unsigned."""
        return self._call("llvm.umax", left.type, [left, right])

    def running_maximum(self, vector: Value) -> Value:
        """Each lane's maximum with all lanes below it, unsigned, in log2(num) steps."""
        zeros = ir.Constant(vector.type, None)
        step = 1
        while step < self.num:
            places = [lane - step if lane >= step else self.num for lane in range(self.num)]
            moved = self.builder.shuffle_vector(vector, zeros, self.constant(I32, places))
            vector = self.maximum(vector, moved)
            step *= 2
        return vector

    def compress(self, vector: Value, bits: Value) -> Value:
        """The lanes whose bit is set, moved together from lane 0 on; the others are anything.

        Only where :func:`compresses_words`.
        """
        nothing = ir.Constant(vector.type, ir.Undefined)
        name = "llvm.x86.avx512.mask.compress"
        return self._call(name, vector.type, [vector, nothing, bits])

    def _call(self, name: str, kind: Value, arguments: list[Value]) -> Value:
        is_vector = isinstance(kind, ir.VectorType)
        suffix = f"v{kind.count}i{kind.element.width}" if is_vector else f"i{kind.width}"
        function = ir.FunctionType(kind, [argument.type for argument in arguments])
        module = self.builder.module
        return self.builder.call(_declared(module, function, f"{name}.{suffix}"), arguments)
