"""What a compiler made of `engine.c`: every instruction of a program by kind, and whether one multiplies.

The program is disassembled, and each mnemonic is looked up in a list of kinds. What no list names counts as
unknown and fails the verdict, as does a call of code that is not in the file. In a library for x86-64 a call
through a register is unknown too; modules of WebAssembly and programs for RV32I hold all that they can call.

Adding numbers takes many instructions that are no additions, and none of them multiplies: bits are shifted,
compared, selected, moved and counted. Two need a word: `lea` on x86-64 computes an address, which is a sum
of two registers, one of them shifted by at most 3 bits; and an instruction with `ps` in its name may only
move or combine bits, as `movaps` and `xorps` do.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import AccessError, InputError

FORBIDDEN = ("multiplication", "division", "floating point")
UNKNOWN = "unknown"

_JUMPS = "o|no|b|nb|c|nc|ae|nae|e|z|ne|nz|be|nbe|a|na|s|ns|p|np|pe|po|l|nl|ge|nge|le|nle|g|ng"
_FLOATS = "[ps][sdh]"
_WHOLE = r"(i8x16|i16x8|i32x4|i64x2|i32|i64)\."

# Kinds of instructions, and the mnemonics that have them, whole. The first kind that matches counts, so what
# is forbidden comes first.
_X86_64 = {
    "multiplication": (
        r"i?mul[bwlq]?|mulx[lq]?|v?pmul\w+|v?pmadd\w+|vpdp\w+|v?pclmul\w+|v?gf2p8\w+|v?f\w*madd\w+|v?f\w*msub\w+"
        rf"|vfn?m(add|sub)\w+|v?mul{_FLOATS}|v?dp{_FLOATS}|v?dpbf16ps|tdp\w+|mulx"
    ),
    "division": rf"i?div[bwlq]?|v?div{_FLOATS}",
    "floating point": (
        rf"v?(add|sub|addsub|hadd|hsub|sqrt|min|max|rcp\w*|rsqrt\w*|round|range|reduce|getexp|getmant|scalef|fixupimm"
        rf"|rndscale|cmp\w*|u?comi){_FLOATS}|v?cvt\w+|f\w+|vfpclass\w+"
    ),
    "addition": (
        r"(add|adc|sub|sbb|inc|dec|neg)[bwlq]?|ad[co]x[lq]?|xadd[bwlq]?|v?p(add|sub)(us|s)?[bwdq]|v?ph(add|sub)(sw|w|d)"
        r"|v?pavg[bw]|v?pabs[bwdq]|v?psadbw|v?psign[bwd]"
    ),
    "address": r"lea[wlq]?",
    "comparison": (
        rf"(cmp|test)[bwlq]?|v?pcmp\w+|vptestn?m[bwdq]|v?ptest|set({_JUMPS})|kortest[bwdq]|ktest[bwdq]|v?p(min|max)[su][bwdq]"
        r"|bt[wlq]?"
    ),
    "shift": (
        r"(sh[lr]|sal|sar|ro[lr]|rc[lr])[bwlq]?|sh[lr]d[wlq]?|(shlx|shrx|sarx|rorx)[lq]?|v?ps(ll|rl|ra)v?(w|d|q|dq)"
        r"|vpro[lr]v?[dq]|vpsh[lr]dv?[wdq]|v?palignr|valign[dq]|kshift[lr][bwdq]"
    ),
    "logic": (
        r"(and|or|xor|not|andn)[bwlq]?|v?p(and|andn|or|xor)[dq]?|v?(and|andn|or|xor)p[sd]|vpternlog[dq]|bls(r|i|msk)[lq]?"
        r"|bt[src][wlq]?|bextr[lq]?|bzhi[lq]?|k(and|andn|or|xor|xnor|not)[bwdq]|k(add|unpck\w)[bwdq]*"
    ),
    "selection": (
        rf"cmov({_JUMPS})[wlq]?|v?pblend\w+|v?blendv?p[sd]|vblendmp[sd]|vpblendm[bwdq]|vp(compress|expand)[bwdq]"
    ),
    "bits counted": r"(popcnt|lzcnt|tzcnt|bs[fr])[wlq]?|vpopcnt[bwdq]|vplzcnt[dq]",
    "movement": (
        r"mov[bwlq]?|movabs[q]?|mov[sz][bwl][wlq]?|movslq|movbe[wlq]?|xchg[bwlq]?|bswap[lq]?|c[bwl]t[wlq]|cltq|cqto|cltd"
        r"|cwtl|cwtd"
        r"|push[wlq]?|pop[wlq]?|(rep )?(stos|movs)[bwlq]?|v?mov[dq]|v?movdq[au](8|16|32|64)?|v?lddqu"
        r"|v?mov[auhl]p[sd]|v?movs[sd]|v?mov(hl|lh)ps|v?mov(ddup|s[hl]dup)|v?movnt\w+|v?pmov[sz]x\w+|vpmov(s|us)?[wdq][bwd]|v?pmovmskb"
        r"|v?movmskp[sd]|vpmov[bwdq]2m|vpmovm2[bwdq]|kmov[bwdq]|v?pshuf\w+|v?shufp[sd]|vshuf[fi]\w+"
        r"|v?punpck\w+|v?unpck[hl]p[sd]"
        r"|v?pack[su]s\w+|vperm\w+|vpermt2\w+|v?p(insr|extr)[bwdq]|v?(insert|extract)(ps|[fi]\d+\w*)|vp?broadcast\w+|v?pgather\w+"
        r"|vp?scatter\w+|vp?gather\w+|vzeroupper|vzeroall|pdep[lq]?|pext[lq]?|vpmultishiftqb"
    ),
    "branch": rf"j({_JUMPS})|jmp[q]?|jr?[ce]xz|call[q]?|ret[q]?|leave[q]?|enter[q]?",
    "nothing": r"nop[wlq]?|endbr64|prefetch\w+|ud2|int3|hlt|pause",
}

_RV32I = {
    "multiplication": r"mul\w*|fn?m(add|sub)\.\w+|fmul\.\w+|clmul\w*|v\w*mul\w*\.\w+|v\w*m(acc|add)\w*\.\w+",
    "division": r"(div|rem)u?w?|fdiv\.\w+|v(div|rem)u?\.\w+",
    "floating point": r"f(?!ence)\w+(\.\w+)*|vf\w+(\.\w+)*",
    "addition": r"addi?|sub|auipc",
    "comparison": r"slti?u?",
    "shift": r"s(ll|rl|ra)i?",
    "logic": r"(and|or|xor)i?",
    "movement": r"l[bhw]u?|s[bhw]|lui",
    "branch": r"b(eq|ne|lt|ge|ltu|geu)|jalr?|ecall|ebreak",
    "nothing": r"fence(\.i|\.tso)?",
}

_WASM32 = {
    "multiplication": rf"{_WHOLE}(mul|extmul_\w+|dot_\w+|q15mulr_sat_s|relaxed_dot\w+|relaxed_q15mulr\w*)"
    r"|[if]\w+\.relaxed_n?madd|f\w+\.mul",
    "division": rf"{_WHOLE}(div_[su]|rem_[su])|f\w+\.div",
    "floating point": rf"f(32|64|32x4|64x2)\.\w+|{_WHOLE}\w*(trunc|reinterpret)\w*f\d\w*",
    "addition": rf"{_WHOLE}(add|sub|neg|abs|(add|sub)_sat_[su]|extadd_pairwise_\w+|avgr_u)",
    "comparison": rf"{_WHOLE}(eqz|eq|ne|(lt|gt|le|ge)(_[su])?|(min|max)_[su]|all_true|bitmask)"
    r"|v128\.any_true",
    "shift": rf"{_WHOLE}(shl|shr_[su]|rotl|rotr)",
    "logic": rf"{_WHOLE}(and|or|xor)|v128\.(and|andnot|or|xor|not)",
    "selection": r"select|v128\.bitselect",
    "bits counted": rf"{_WHOLE}(clz|ctz|popcnt)",
    "movement": (
        rf"{_WHOLE}(const|load\w*|store\w*|splat|shuffle|swizzle|extract_lane(_[su])?|replace_lane|narrow_\w+|extend\w+|wrap_i64)"
        r"|v128\.(const|load\w*|store\w*)|(local|global)\.(get|set|tee)|drop|memory\.(copy|fill|size|grow)"
    ),
    "branch": r"br|br_if|br_table|call|call_indirect|return|block|loop|if|else|end|end_\w+|try",
    "nothing": r"nop|unreachable",
}


class _Machine(NamedTuple):
    name: str
    disassemblers: tuple[tuple[str, ...], ...]  # the first one that is installed
    packages: str
    kinds: dict[str, str]
    instruction: str  # a line of a disassembly: its address, mnemonic and operands


_LINE = r"\s*(?P<address>[0-9a-f]+):\s+(?P<mnemonic>\S.*?)(?:\s+(?P<operands>.*))?"
_RAW = "--no-show-raw-insn"
_MACHINES = {
    "x86-64": _Machine("x86-64", (("objdump", _RAW), ("llvm-objdump", _RAW)), "binutils", _X86_64, _LINE),
    "RV32I": _Machine(
        "RV32I",
        (
            ("riscv64-unknown-elf-objdump", _RAW, "-Mno-aliases,numeric"),
            ("llvm-objdump", _RAW, "-Mno-aliases"),
        ),
        "binutils-riscv64-unknown-elf",
        _RV32I,
        _LINE,
    ),
    # Raw bytes are shown, since a `select` of any type is printed as one of floats.
    "WebAssembly": _Machine(
        "WebAssembly",
        (("llvm-objdump",),),
        "llvm",
        _WASM32,
        r"\s*(?P<address>[0-9a-f]+):(?P<bytes>(?: [0-9a-f]{2})+)\s+(?P<mnemonic>\S+)(?:\s+(?P<operands>.*))?",
    ),
}

_PREFIXES = re.compile(
    r"((data16|addr32|cs|ds|es|fs|gs|ss|lock|bnd|\{evex\}|\{vex\d?\}|notrack|repz|repnz)\s+)*"
)
_FUNCTION = re.compile(r"[0-9a-f]+ <(?P<name>[^>]*)>:")
_SECTION = re.compile(r"Disassembly of section (?P<name>\S+):")
_NAMED = re.compile(r"<(?P<name>[^>+@]+?)(?:[+@][^>]*)?>")

# What the linker adds to a shared library on its own, and never passes an image through.
_START_UP = {
    "_init",
    "_fini",
    "deregister_tm_clones",
    "register_tm_clones",
    "frame_dummy",
    "__do_global_dtors_aux",
}
_BYTES_ONLY = {"memcpy", "memmove", "memset"}  # of the C library: they move bytes
# Routines by which compilers replace instructions that a processor lacks.
_ROUTINES = {
    "multiplication": re.compile(
        r"__(mul[a-z]*|smul\w*|umul\w*)(qi|hi|si|di|ti|sf|df|tf|xf|sc|dc)[0-9]?|__riscv_mul\w*|fmaf?l?"
    ),
    "division": re.compile(
        r"__(u?div|u?mod|u?divmod)(qi|hi|si|di|ti|sf|df|tf|xf|sc|dc)[0-9]?|__hidden___udiv\w*"
    ),
    "floating point": re.compile(
        r"__(add|sub|neg|fix|fixuns|float|floatun|extend|trunc|cmp|unord|eq|ne|lt|le|gt|ge|pow)\w*(sf|df|tf|xf|hf)\w*"
    ),
}


@dataclass(frozen=True)
class Instruction:
    """One instruction of a program.

    Args:
        function: the function that it is in.
        address: where it is.
        mnemonic: its name.
        operands: as the disassembler prints them.
        kind: what it does.
    """

    function: str
    address: int
    mnemonic: str
    operands: str
    kind: str

    def __str__(self) -> str:
        return f"{self.function} at {self.address:#x}: {self.mnemonic} {self.operands}".rstrip()


@dataclass(frozen=True)
class MachineCode:
    """The instructions of a program, and what they say.

    Args:
        file: the file's name.
        machine: `x86-64`, `WebAssembly` or `RV32I`.
        functions: the functions that were read.
        not_read: functions that the linker added, which start a library up.
        outside: functions that are called and are not in the file.
        instructions: all of them, in the file's order.
    """

    file: str
    machine: str
    functions: tuple[str, ...]
    not_read: tuple[str, ...]
    outside: tuple[str, ...]
    instructions: tuple[Instruction, ...]

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """For each kind that occurs, how often each mnemonic of it does, the most frequent first."""
        found: dict[str, Counter[str]] = {}
        for each in self.instructions:
            found.setdefault(each.kind, Counter())[each.mnemonic] += 1
        by_size = sorted(found.items(), key=lambda item: -item[1].total())
        return {kind: dict(mnemonics.most_common()) for kind, mnemonics in by_size}

    @cached_property
    def forbidden(self) -> tuple[Instruction, ...]:
        """Instructions that multiply, divide, or calculate in floating point."""
        return tuple(each for each in self.instructions if each.kind in FORBIDDEN)

    @cached_property
    def unknown(self) -> tuple[Instruction, ...]:
        """Instructions that no list of kinds names, and jumps to where the file does not say."""
        return tuple(each for each in self.instructions if each.kind == UNKNOWN)

    @cached_property
    def routines(self) -> dict[str, str]:
        """Functions, read or called, that calculate what an instruction must not; and what that is."""
        names = (*self.functions, *self.outside)
        return {
            name: kind for name in names for kind, routine in _ROUTINES.items() if routine.fullmatch(name)
        }

    @property
    def unread(self) -> tuple[str, ...]:
        """Functions outside of which nothing is known."""
        return tuple(name for name in self.outside if name not in _BYTES_ONLY and name not in self.routines)

    @property
    def multiplication_free(self) -> bool:
        """Whether no instruction multiplies, divides or calculates in floating point, and all are known."""
        return not (self.forbidden or self.unknown or self.routines or self.unread)

    def verdict(self) -> str:
        """One line."""
        size = f"{len(self.instructions):,} instructions of {self.machine} in {len(self.functions)} functions"
        if self.multiplication_free:
            return f"multiplication-free: {size}, none multiplies, divides or calculates in floating point"
        wrong = [f"{len(self.forbidden)} forbidden"] if self.forbidden else []
        wrong += [f"{len(self.unknown)} unknown"] if self.unknown else []
        calls = (*self.routines, *self.unread)
        wrong += [f"calls of {', '.join(calls)}"] if calls else []
        return f"not multiplication-free: {size}, {', '.join(wrong)}"

    def notes(self) -> list[str]:
        """What is wrong, one line each; then which functions were read, and which were not."""
        lines = [f"{each} ({each.kind})" for each in (*self.forbidden, *self.unknown)]
        lines += [f"{name} is a routine of the compiler ({kind})" for name, kind in self.routines.items()]
        lines += [f"{name} is called and is not in the file (unknown)" for name in self.unread]
        lines += [f"functions: {', '.join(self.functions)}"]
        known = [name for name in self.outside if name in _BYTES_ONLY]
        lines += [f"of the C library, moving bytes: {', '.join(known)}"] if known else []
        lines += [f"not read, from the linker: {', '.join(self.not_read)}"] if self.not_read else []
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "file": self.file,
            "machine": self.machine,
            "multiplication_free": self.multiplication_free,
            "verdict": self.verdict(),
            "instructions": self.counts,
            "forbidden": [str(each) for each in self.forbidden],
            "unknown": [str(each) for each in self.unknown],
            "routines": self.routines,
            "functions": list(self.functions),
            "outside": list(self.outside),
            "not_read": list(self.not_read),
        }


def audit_instructions(program: Path) -> MachineCode:
    """Read every instruction of a linked program.

    Args:
        program: a shared library or program for x86-64 or RV32I, or a WebAssembly module.

    Raises:
        InputError: it is none of these, is not linked, or no disassembler for it is installed.

    Source: the instruction lists of the Intel manual (volume 2), of the RISC-V manual (volume I, chapter
    RV32I), and of the WebAssembly specification (chapter Instructions).
    """
    try:
        content = program.read_bytes()
    except OSError as error:
        raise AccessError.of(program, error) from error
    machine = _machine(content, program)
    functions, not_read, outside, found = _parse(_disassemble(machine, program), machine)
    if not found:
        raise InputError(f"{program} holds no code; give a linked program or library")
    if machine.name == "WebAssembly":
        outside += [name for name in imported_functions(content) if name not in outside]
    return MachineCode(
        program.name, machine.name, tuple(functions), tuple(not_read), tuple(outside), tuple(found)
    )


def _machine(content: bytes, program: Path) -> _Machine:
    if content[:4] == b"\0asm":
        if b"\x07linking" in content[:64] or b"reloc.CODE" in content:
            raise InputError(f"{program} is not linked; give the linked module")
        return _MACHINES["WebAssembly"]
    if content[:4] != b"\x7fELF" or len(content) < 20:
        raise InputError(f"{program} is no program in ELF and no WebAssembly module; only these are read")
    if int.from_bytes(content[16:18], "little") == 1:
        raise InputError(f"{program} is not linked; give the linked program")
    number = int.from_bytes(content[18:20], "little")
    match number, content[4]:
        case 62, 2:
            return _MACHINES["x86-64"]
        case 243, 1:
            return _MACHINES["RV32I"]
        case _:
            raise InputError(
                f"{program} is for machine {number} of ELF; instructions of x86-64, RV32I and WebAssembly are"
                " known"
            )


def _disassemble(machine: _Machine, program: Path) -> str:
    for name, *options in machine.disassemblers:
        if shutil.which(name):
            command = [name, "-d", *options, str(program)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode:
                raise InputError(f"{name} cannot read {program}: {done.stderr.strip()}")
            return done.stdout
    names = " or ".join(name for name, *_ in machine.disassemblers)
    raise InputError(f"{names} is not installed; it reads {machine.name} (Debian: {machine.packages})")


def _parse(text: str, machine: _Machine) -> tuple[list[str], list[str], list[str], list[Instruction]]:
    """Functions read, functions not read, functions outside, and instructions."""
    line = re.compile(machine.instruction)
    known = [(kind, re.compile(pattern)) for kind, pattern in machine.kinds.items()]
    functions: list[str] = []
    not_read: list[str] = []
    found: list[Instruction] = []
    section = function = ""
    reads = True
    for text_line in text.splitlines():
        if match := _SECTION.match(text_line):
            section = match["name"]
        elif match := _FUNCTION.match(text_line):
            function = match["name"].split("@")[0]
            if section.startswith(".plt") or function == section:  # what leads to the functions outside
                reads = (
                    function == section and machine.name != "WebAssembly" and not section.startswith(".plt")
                )
                continue
            reads = function not in _START_UP
            (functions if reads else not_read).append(function)
        elif reads and function and (match := line.fullmatch(text_line)):
            found.append(_instruction(match, function, known))
    outside = [name for each in found if (name := _target(each)) and name not in functions]
    return functions, not_read, list(dict.fromkeys(outside)), found


def _instruction(
    match: re.Match[str], function: str, known: list[tuple[str, re.Pattern[str]]]
) -> Instruction:
    mnemonic, operands = match["mnemonic"], match["operands"] or ""
    whole = _PREFIXES.sub("", f"{mnemonic} {operands} ", count=1).strip()
    mnemonic, _, operands = whole.partition(" ")
    if mnemonic == "rep":
        more, _, operands = operands.partition(" ")
        mnemonic = f"rep {more}"
    raw = match.groupdict().get("bytes")
    if raw and raw.split()[0] in ("1a", "1b"):
        mnemonic = {"1a": "drop", "1b": "select"}[raw.split()[0]]
    kind = next((kind for kind, pattern in known if pattern.fullmatch(mnemonic)), UNKNOWN)
    found = Instruction(function, int(match["address"], 16), mnemonic, operands.strip(), kind)
    if re.match(r"call", mnemonic) and operands.startswith("*") and not _target(found):
        return Instruction(function, found.address, mnemonic, found.operands, UNKNOWN)
    return found


def _target(instruction: Instruction) -> str | None:
    """The function that is called or jumped to, where the disassembly names it."""
    named = _NAMED.search(instruction.operands) if instruction.kind == "branch" else None
    return named["name"] if named else None


def imported_functions(content: bytes) -> list[str]:
    """The functions that a WebAssembly module takes from outside.

    Args:
        content: the module.
    """
    at = 8

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = content[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def name() -> str:
        nonlocal at
        size = number()
        at += size
        return content[at - size : at].decode(errors="replace")

    while at < len(content):
        section, size = number(), number()
        end = at + size
        if section == 2:
            found = []
            for _ in range(number()):
                module, field, kind = name(), name(), number()
                if kind == 0:
                    number()
                    found.append(field if module == "env" else f"{module}.{field}")
                else:  # a table, a memory or a global
                    at += 1 if kind in (1, 3) else 0
                    flags = number()
                    if kind in (1, 2):
                        number()
                        _ = number() if flags & 1 else 0
            return found
        at = end
    return []
