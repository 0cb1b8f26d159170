"""Reading machine code: what is found in small programs, and that the engine holds no multiplication."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from test_cli import assert_wrong_usage, call

from snnmlp_edu.engine import targets
from snnmlp_edu.engine.building import SOURCE
from snnmlp_edu.engine.instructions import MachineCode, audit_instructions
from snnmlp_edu.errors import InputError

TOOLS = {
    "x86-64": ("gcc", "objdump"),
    "RV32I": (targets.RV32I[0], "riscv64-unknown-elf-objdump"),
    "WebAssembly": ("clang", "wasm-ld", "llvm-objdump"),
}
COMMANDS = {
    "x86-64": ("gcc", "-O2", "-shared", "-fPIC", "-nostdlib"),
    "RV32I": (targets.RV32I[0], "-O1", "-march=rv32i", "-mabi=ilp32", "-nostdlib", "-Wl,-e,f"),
    "WebAssembly": ("clang", "-O1", "--target=wasm32", "-nostdlib", "-Wl,--no-entry,--export=f"),
}
VECTOR = "typedef int v __attribute__((vector_size(16)));"


def need(machine: str) -> None:
    for tool in TOOLS[machine]:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def compiled(machine: str, source: str, folder: Path, *options: str) -> MachineCode:
    need(machine)
    (folder / "f.c").write_text(source)
    libgcc = ["-lgcc"] if machine == "RV32I" else []
    command = [*COMMANDS[machine], *options, "f.c", "-o", "f", *libgcc]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode and "x86" in machine and "-m" in done.stderr:
        pytest.skip(f"{command[0]} here is for another processor")
    assert done.returncode == 0, done.stderr
    return audit_instructions(folder / "f")


@pytest.mark.parametrize(
    ("machine", "source", "options", "mnemonic", "kind"),
    [
        ("x86-64", "int f(int a, int b) { return a * b; }", (), "imul", "multiplication"),
        ("x86-64", f"{VECTOR} v f(v a, v b) {{ return a * b; }}", ("-msse4.1",), "pmulld", "multiplication"),
        ("x86-64", "int f(int a, int b) { return a / b; }", (), "idiv", "division"),
        ("x86-64", "float f(float a, float b) { return a + b; }", (), "addss", "floating point"),
        ("x86-64", "double f(int a) { return a; }", (), "cvtsi2sd", "floating point"),
        ("x86-64", "long double f(long double a) { return a + a; }", (), "fadd", "floating point"),
        (
            "x86-64",
            "double f(double a, double b, double c) { return a * b + c; }",
            ("-mfma",),
            "vfmadd132sd",
            "multiplication",
        ),
        (
            "x86-64",
            "#include <immintrin.h>\n__m128i f(__m128i a, __m128i b) { return _mm_madd_epi16(a, b); }",
            (),
            "pmaddwd",
            "multiplication",
        ),
        (
            "x86-64",
            "#include <immintrin.h>\n"
            "__m256i f(__m256i s, __m256i a, __m256i b)"
            " { return _mm256_dpbusd_epi32(s, a, b); }",
            ("-mavx512vnni", "-mavx512vl"),
            "vpdpbusd",
            "multiplication",
        ),
        (
            "x86-64",
            "#include <immintrin.h>\n"
            "unsigned long long f(unsigned long long a, unsigned long long *b)"
            " { return _mulx_u64(a, a, b); }",
            ("-mbmi2",),
            "mulx",
            "multiplication",
        ),
        ("RV32I", "int f(int a, int b) { return a * b; }", ("-march=rv32im",), "mul", "multiplication"),
        ("RV32I", "int f(int a, int b) { return a % b; }", ("-march=rv32im",), "rem", "division"),
        ("WebAssembly", "int f(int a, int b) { return a * b; }", (), "i32.mul", "multiplication"),
        ("WebAssembly", "int f(int a, int b) { return a / b; }", (), "i32.div_s", "division"),
        ("WebAssembly", "float f(float a, float b) { return a + b; }", (), "f32.add", "floating point"),
        (
            "WebAssembly",
            "#include <wasm_simd128.h>\nv128_t f(v128_t a, v128_t b) { return wasm_i32x4_dot_i16x8(a, b); }",
            ("-msimd128", "-ffreestanding"),
            "i32x4.dot_i16x8_s",
            "multiplication",
        ),
        (
            "WebAssembly",
            f"{VECTOR} v f(v a, v b) {{ return a * b; }}",
            ("-msimd128",),
            "i32x4.mul",
            "multiplication",
        ),
    ],
)
def test_what_is_planted_is_found(
    tmp_path: Path, machine: str, source: str, options: tuple[str, ...], mnemonic: str, kind: str
) -> None:
    found = compiled(machine, source, tmp_path, *options)
    assert found.machine == machine
    assert (mnemonic, kind, "f") in {
        (each.mnemonic.removesuffix("l").removesuffix("p"), each.kind, each.function)
        for each in found.forbidden
    } | {(each.mnemonic, each.kind, each.function) for each in found.forbidden}
    assert not found.multiplication_free
    assert any(mnemonic in note and kind in note for note in found.notes())


@pytest.mark.parametrize("machine", TOOLS)
def test_sums_and_shifts_pass(tmp_path: Path, machine: str) -> None:
    source = "int f(const int *a, int b) { return b < a[1] ? (a[0] << b) - a[1] : (a[0] ^ a[2]) >> 3; }"
    found = compiled(machine, source, tmp_path)
    assert found.multiplication_free, found.notes()
    assert "f" in found.functions
    assert {"addition", "shift", "logic", "movement"} <= found.counts.keys()
    assert sum(sum(each.values()) for each in found.counts.values()) == len(found.instructions)


@pytest.mark.parametrize(
    ("sign", "name", "kind"), [("*", "__mulsi3", "multiplication"), ("/", "__divsi3", "division")]
)
def test_routines_of_the_compiler_are_found_by_name(tmp_path: Path, sign: str, name: str, kind: str) -> None:
    found = compiled("RV32I", f"int f(int a, int b) {{ return a {sign} b; }}", tmp_path)
    assert not found.forbidden  # it shifts and adds, or subtracts, in a loop
    assert found.routines[name] == kind
    assert not found.multiplication_free
    assert name in found.verdict()


def test_calls_of_what_is_not_there_fail_but_for_moving_bytes(tmp_path: Path) -> None:
    source = "void *memcpy(void *, const void *, unsigned long); int g(int); int __mulsi3(int, int);"
    source += "int f(char *a, char *b, unsigned long n) { memcpy(a, b, n); return g(1) + __mulsi3(2, 3); }"
    found = compiled("x86-64", source, tmp_path)
    assert set(found.outside) == {"memcpy", "g", "__mulsi3"}
    assert found.unread == ("g",)
    assert found.routines == {"__mulsi3": "multiplication"}
    assert not found.multiplication_free


def test_a_call_through_a_register_is_unknown(tmp_path: Path) -> None:
    found = compiled("x86-64", "int f(int (*g)(int)) { return g(1) + 1; }", tmp_path)
    assert [each.mnemonic for each in found.unknown] == ["call"]
    assert not found.multiplication_free


@pytest.mark.parametrize(
    ("machine", "line"), [("x86-64", "aesenc %xmm0, %xmm1"), ("RV32I", ".insn r 0x0b, 0, 0, a0, a0, a0")]
)
def test_an_unknown_instruction_fails(tmp_path: Path, machine: str, line: str) -> None:
    found = compiled(machine, f'void f(void) {{ __asm__ volatile("{line}"); }}', tmp_path)
    assert len(found.unknown) == 1
    assert not found.forbidden
    assert not found.multiplication_free
    assert "1 unknown" in found.verdict()


def test_functions_that_a_module_imports_are_outside(tmp_path: Path) -> None:
    source = "int g(int); int f(int a) { return g(a) + 1; }"
    found = compiled("WebAssembly", source, tmp_path, "-Wl,--allow-undefined")
    assert found.unread == ("g",)
    assert not found.multiplication_free


def test_the_engine_holds_no_multiplication(tmp_path: Path) -> None:
    need("x86-64")
    for options in (["-O2", "-mavx2"], ["-O3", "-march=native"]):
        command = [
            "gcc",
            "-std=gnu11",
            "-Wno-psabi",
            "-shared",
            "-fPIC",
            *options,
            str(SOURCE),
            "-o",
            "engine",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        if done.returncode and "-m" in done.stderr:
            pytest.skip("gcc here is for another processor")
        found = audit_instructions(tmp_path / "engine")
        assert found.multiplication_free, found.notes()
        assert {"snn_open", "snn_prepare", "snn_run", "map_ROWS_4"} <= set(found.functions)
        assert not set(found.functions) & set(found.not_read)
        assert found.counts["addition"]["vpaddw"] > 50


def test_what_is_no_program_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("int f;")
    with pytest.raises(InputError, match="text is no program"):
        audit_instructions(tmp_path / "text")
    with pytest.raises(InputError, match="missing"):
        audit_instructions(tmp_path / "missing")
    need("x86-64")
    (tmp_path / "f.c").write_text("int f(int a) { return a; }")
    subprocess.run(["gcc", "-c", "f.c"], cwd=tmp_path, check=True)
    with pytest.raises(InputError, match=r"f\.o is not linked"):
        audit_instructions(tmp_path / "f.o")


def test_a_missing_disassembler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module").write_bytes(b"\0asm\1\0\0\0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="llvm-objdump is not installed"):
        audit_instructions(tmp_path / "module")


def test_the_command_prints_kinds_and_verdict() -> None:
    need("x86-64")
    toy = ("dim=6", "image_size=8", "depths=[1,1]", "patch_size=2")
    code, out, _ = call("audit", "mlp_spe_nano", *toy, "--engine", "--target", "native")
    assert code == 0
    lines = out.splitlines()
    assert any(line.split()[:1] == ["addition"] for line in lines)
    assert any(line.startswith("functions: ") and "snn_run" in line for line in lines)
    assert lines[-1].startswith("multiplication-free: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--engine", "--target", "wsm"], "did you mean 'wasm'"), (["--target", "wasm"], "add --engine")],
)
def test_mistakes_get_one_line(words: list[str], message: str) -> None:
    assert_wrong_usage(call("audit", "mlp_spe_nano", *words), message)
